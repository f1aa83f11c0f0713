from django.urls import path

from apps.inference import api, openai

urlpatterns = [
    path("v1/predictions", api.Predictions.as_view()),
    path("v1/embeddings", openai.Embeddings.as_view()),
]
