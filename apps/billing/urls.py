from django.urls import path

from apps.billing import api

urlpatterns = [path("v1/limits", api.Limits.as_view())]
