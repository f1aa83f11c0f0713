from django.urls import path

from apps.billing import api, invoice_api

urlpatterns = [
    path("v1/limits", api.Limits.as_view()),
    path("v1/budgets", api.Budgets.as_view()),
    path("v1/budgets/<str:budget_id>", api.Budget.as_view()),
    path("v1/credits", api.Credits.as_view()),
    path("v1/credits/redeem", api.Redeem.as_view()),
    path("v1/invoices", invoice_api.Invoices.as_view()),
    path("v1/invoices/preview", invoice_api.Preview.as_view()),
    path("v1/invoices/<str:invoice_id>", invoice_api.Invoice.as_view()),
]
