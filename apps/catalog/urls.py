from django.urls import path

from apps.catalog import api

urlpatterns = [
    path("v1/models", api.Models.as_view()),
    path("v1/models/<path:model>/versions", api.Versions.as_view()),
    path("v1/models/<path:model>", api.Model.as_view()),
]
