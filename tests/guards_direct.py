"""Guards of the short way of a key's call, and of the questions that it asks."""

from tests.guarding import Guard

DIRECT = (
    Guard(
        "direct: a scope is asked for",
        "apps/inference/direct.py",
        "        HasScope().has_permission(asked, self)\n",
        "",
        "tests/test_direct.py -k who_calls",
    ),
    Guard(
        "direct: a large body is read after the key",
        "apps/inference/direct.py",
        "> READ_FIRST:",
        "< 0:",
        "tests/test_direct.py -k large_body",
    ),
    Guard(
        "direct: browsers do not go past their middleware",
        "maas/browsers.py",
        'return "HTTP_AUTHORIZATION" in request.META and request.path_info.startswith(API)',
        "return request.path_info.startswith(API)",
        "tests/test_direct.py -k csrf",
    ),
    Guard(
        "questions: a connection that died is made anew",
        "maas/questions.py",
        "            line.close()\n            return line.ask(question)\n",
        "            raise\n",
        "tests/test_direct.py -k died_unnoticed",
    ),
    Guard(
        "questions: what no longer fits is asked anew",
        "maas/questions.py",
        "        except (OperationalError, InterfaceError, NotSupportedError):\n            line.close()\n            return line",
        "        except (OperationalError, InterfaceError):\n            line.close()\n            return line",
        "tests/test_direct.py -k no_longer_fits",
    ),
    Guard(
        "questions: threads share a few connections",
        "maas/questions.py",
        "self.turns = BoundedSemaphore(CONNECTIONS)",
        "self.turns = BoundedSemaphore(1000)",
        "tests/test_direct.py -k share_a_few",
    ),
    Guard(
        "questions: the system's role stays on its own connections",
        "maas/questions.py",
        "mine = _system if is_system else _shared",
        "mine = _system",
        "tests/test_isolation.py -k one_trip",
    ),
    Guard(
        "direct: a waiting call holds no connection",
        "maas/tenancy.py",
        "    if not connection.in_atomic_block:\n        return tell_as_tenant(tenant_id, statement)\n",
        "",
        "tests/test_direct.py -k holds_no_connection",
    ),
    Guard(
        "limits: a call that has to ask the database for units is counted before",
        "apps/inference/services.py",
        "    rates.note(take(limits))\n    return ()\n",
        "    return limits\n",
        "tests/test_rate_limits.py -k keeps_the_database",
    ),
    Guard(
        "limits: a call that does not pass is not in line",
        "maas/queue/scripts.py",
        "if counted[1] == 1 then return {0, 0, counted} end",
        "",
        "tests/test_queue.py -k over_its_limit",
    ),
)
