"""The prefork pool, where Celery's own would end the worker."""

from celeriac.worker.pool import AsynPool


def test_a_child_is_replaced_although_the_pipes_of_the_one_before_are_still_taken():
    class Taken(AsynPool):
        def __init__(self) -> None:
            self._queues = {"of the dead": object()}

        def create_process_queues(self) -> str:
            return "new"

    assert Taken().get_process_queues() == "new"
