from django.urls import path

from apps.jobs import api

urlpatterns = [
    path("v1/batches", api.Batches.as_view()),
    path("v1/batches/<str:batch_id>", api.Batch.as_view()),
    path("v1/batches/<str:batch_id>/cancel", api.Cancel.as_view()),
    path("v1/batches/<str:batch_id>/events", api.Events.as_view()),
]
