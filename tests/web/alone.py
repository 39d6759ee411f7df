"""Keeps what other tests share with every app out of the apps of the web tests."""

from celery import _state

from celeriac import Celeriac


def finalize_alone(app: Celeriac) -> None:
    """Finalize an app without any `@shared_task`, of before now or later; nor does it have Celery's own tasks."""
    _state._deregister_app(app)
    kept, _state._on_app_finalizers = _state._on_app_finalizers, set()
    try:
        app.finalize()
    finally:
        _state._on_app_finalizers = kept
