"""Every address: health, the REST API, accounts, the operator's admin, and the dashboard."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from maas import health, missing, scraping

urlpatterns = [
    path("v1/", include("apps.inference.urls")),  # first: nothing is called as often
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", scraping.scrape),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    path("", include("apps.accounts.urls")),
    path("", include("apps.catalog.urls")),
    path("", include("apps.files.urls")),
    path("", include("apps.audit.urls")),
    path("", include("apps.webhooks.urls")),
    path("", include("apps.usage.urls")),
    path("", include("apps.billing.urls")),
    path("", include("apps.payments.urls")),
    path("", include("apps.jobs.urls")),
    path("accounts/", include("apps.accounts.sign_in_urls")),
    path("", include("apps.accounts.operator_urls")),
    path("", include("apps.dashboard.urls")),
]
handler404 = missing.page_not_found
handler500 = missing.server_error
