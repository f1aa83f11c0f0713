"""The operator's addresses. Importing this loads the admin and what each of our apps shows in it."""

from importlib import import_module

from django.apps import apps
from django.urls import include, path
from django.utils.module_loading import module_has_submodule
from django.views.generic import RedirectView

from apps.accounts import operator_deeds
from apps.accounts.admin import leave
from apps.accounts.operator_site import site

for config in apps.get_app_configs():
    if config.name.startswith("apps.") and module_has_submodule(config.module, "admin"):  # type: ignore[arg-type]
        import_module(f"{config.name}.admin")

own = [
    path("deeds/<slug:kind>/<uuid:row_id>/<slug:name>", site.admin_view(operator_deeds.do), name="deed"),
    path("login", site.login),
    path("leave", site.admin_view(leave), name="leave"),
]
urlpatterns = [
    path("operator", RedirectView.as_view(pattern_name="operator:index")),
    path("operator/", include(([*own, *site.get_urls()], "admin"), namespace="operator")),
]
