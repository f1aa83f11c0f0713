from django.urls import path

from apps.usage import api

urlpatterns = [path("v1/usage", api.Usage.as_view())]
