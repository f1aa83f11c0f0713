from django.urls import path

from apps.files import api

urlpatterns = [
    path("v1/files", api.Files.as_view()),
    path("v1/files/<str:file_id>", api.File.as_view()),
    path("v1/files/<str:file_id>/content", api.Content.as_view()),
]
