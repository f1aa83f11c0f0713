from django.urls import path

from apps.accounts import api

urlpatterns = [
    path("v1/keys", api.Keys.as_view()),
    path("v1/keys/report", api.Report.as_view()),
    path("v1/keys/<str:key_id>", api.Key.as_view()),
    path("v1/keys/<str:key_id>/rotate", api.Rotation.as_view()),
]
