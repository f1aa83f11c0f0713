from django.urls import path

from apps.dashboard.views import account, files, jobs, keys, models, overview, start, usage

urlpatterns = [
    path("", overview.show, name="overview"),
    path("getting-started/key", start.make_key, name="first_key"),
    path("getting-started/run", start.run_here, name="first_run"),
    path("getting-started/state", start.state, name="first_state"),
    path("getting-started/dismiss", start.dismiss, name="dismiss_start"),
    path("models", models.index, name="models"),
    path("models/<path:name>/play", models.play, name="play"),
    path("models/<path:name>", models.show, name="model"),
    path("jobs", jobs.index, name="jobs"),
    path("jobs/rows", jobs.rows, name="job_rows"),
    path("jobs/new", jobs.new, name="new_job"),
    path("jobs/sample.jsonl", jobs.sample, name="sample_file"),
    path("jobs/<str:job_id>", jobs.show, name="job"),
    path("jobs/<str:job_id>/live", jobs.live, name="job_live"),
    path("jobs/<str:job_id>/cancel", jobs.cancel, name="cancel_job"),
    path("files", files.index, name="files"),
    path("files/<str:file_id>/content", files.download, name="download_file"),
    path("files/<str:file_id>/delete", files.delete, name="delete_file"),
    path("keys", keys.index, name="keys"),
    path("keys/new", keys.new, name="new_key"),
    path("keys/<str:key_id>/revoke", keys.revoke, name="revoke_key"),
    path("usage", usage.show, name="usage"),
    path("account", account.show, name="account"),
    path("organisations/switch", account.switch_organisation, name="switch_organisation"),
    path("organisations/new", account.new_organisation, name="new_organisation"),
]
