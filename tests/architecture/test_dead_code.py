"""Nothing is kept that nobody uses."""

from house.dead_code import nobody_names
from house.sources import EXAMPLES, PACKAGE, ROOT, TESTS
from house.verdict import expect_none

USERS = [TESTS, EXAMPLES, *(ROOT / name for name in ("benchmarks", "conftest.py") if (ROOT / name).exists())]


def test_everything_is_used_or_at_least_tested():
    """Every function, class and property of the package is named by other code of the package or by a user of it."""
    expect_none(nobody_names(PACKAGE, USERS))


def test_a_method_that_nobody_calls_is_found(tmp_path):
    """A leftover is found, what a user calls is not, and magic methods are the language's business."""
    package, users = tmp_path / "package", tmp_path / "users"
    package.mkdir()
    users.mkdir()
    (package / "room.py").write_text(
        "class Room:\n    def enter(self): ...\n\n    def leftover(self): ...\n\n    def __len__(self): ...\n"
    )
    (users / "test_room.py").write_text("from room import Room\n\nRoom().enter()\n\n\ndef test_unused(): ...\n")
    assert nobody_names(package, [users]) == [f"{package / 'room.py'}:4: nothing uses the method leftover"]
