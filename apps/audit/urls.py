from django.urls import path

from apps.audit import api

urlpatterns = [path("v1/audit", api.Audit.as_view()), path("v1/audit/export", api.Export.as_view())]
