from django.urls import path

from apps.webhooks import api

urlpatterns = [
    path("v1/webhooks", api.Webhooks.as_view()),
    path("v1/webhooks/<str:webhook_id>", api.Webhook.as_view()),
    path("v1/webhooks/<str:webhook_id>/rotate", api.Rotation.as_view()),
    path("v1/webhooks/<str:webhook_id>/test", api.Test.as_view()),
    path("v1/webhooks/<str:webhook_id>/replay", api.ReplayFailed.as_view()),
    path("v1/webhooks/<str:webhook_id>/deliveries", api.Deliveries.as_view()),
    path("v1/webhooks/<str:webhook_id>/deliveries/<str:delivery_id>", api.Delivery.as_view()),
    path("v1/webhooks/<str:webhook_id>/deliveries/<str:delivery_id>/replay", api.Replay.as_view()),
]
