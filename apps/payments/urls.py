from django.urls import path

from apps.payments import api

urlpatterns = [path("stripe/webhook", api.webhook, name="stripe-webhook")]
