from django.urls import path

from apps.inference import api, openai

urlpatterns = [
    path("predictions", api.Predictions.as_view()),
    path("embeddings", openai.Embeddings.as_view()),
]
