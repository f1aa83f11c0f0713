"""What Celery calls. A message only nudges: the database says what is to be done, and by whom."""

from uuid import UUID

from apps.files import services as files
from apps.jobs import sweeping
from apps.usage import services as usage
from maas.celery import app
from workers.batch import assembly, running, validation


@app.task(name="workers.tasks.validate_batch")
def validate_batch(tenant_id: str, job_id: str) -> None:
    validation.validate_batch(UUID(tenant_id), UUID(job_id))


@app.task(name="workers.tasks.run_slices")
def run_slices() -> None:
    running.run_slices()


@app.task(name="workers.tasks.finish_batch")
def finish_batch(tenant_id: str, job_id: str) -> None:
    assembly.finish_batch(UUID(tenant_id), UUID(job_id))


@app.task(name="workers.tasks.sweep")
def sweep() -> None:
    sweeping.sweep_jobs()
    files.sweep_files()


@app.task(name="workers.tasks.roll_up_usage")
def roll_up_usage() -> None:
    usage.roll_up()
