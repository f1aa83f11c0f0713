from django.urls import path

from apps.inference import api

urlpatterns = [path("v1/predictions", api.Predictions.as_view())]
