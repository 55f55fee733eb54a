"""tools/ablation.py: what is trained and what is not, and the table."""

from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import pages.ablation

    return pages.ablation


def test_trainings_become_a_table(ablation, monkeypatch, tmp_path, capsys):
    asked = []

    def train(recipe, settings, out):
        asked.append((recipe, settings, out.name))
        out.mkdir(parents=True)
        if "learning_rate=1" in settings:
            return True
        (out / "preset.json").write_text("{}")
        rows = ["epoch,loss,val_AP,val_AP50,silent_units", "1,2.0,0.1,0.2,0.3", "2,1.25,0.25,0.5,0.12345"]
        (out / "history.csv").write_text("\n".join(rows) + "\n")
        return False

    monkeypatch.setattr(ablation, "train", train)
    words = [
        "recipe.py",
        "--set",
        "epochs=2",
        "--vary",
        "as it is",
        "--vary",
        "too fast: learning_rate=1 clipnorm=None",
    ]
    words += ["--out", str(tmp_path)]
    assert ablation.main(words) == 1
    assert asked == [
        ("recipe.py", ["epochs=2"], "as_it_is"),
        ("recipe.py", ["epochs=2", "learning_rate=1", "clipnorm=None"], "too_fast"),
    ]
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "| settings | epochs | loss | AP | AP50 | silent units |",
        "|---|--:|--:|--:|--:|--:|",
        "| as it is | 2 | 1.250 | 0.250 | 0.500 | 0.123 |",
        "| too fast | 0 | - | - | - | - |",
    ]
    assert ablation.main([*words[:5], *words[7:]]) == 0 and len(asked) == 2  # it is there already


@pytest.mark.parametrize("names", [["a", "a: batch_size=1"], ["a b", "a_b"], [": batch_size=1"]])
def test_names_that_share_a_folder_are_refused(ablation, names, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablation.main(["recipe.py", "--out", str(tmp_path), *(word for name in names for word in ("--vary", name))])
    assert "a folder, of its own" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_table_of_nothing_is_a_table(ablation, tmp_path):
    assert ablation.table([("base", tmp_path)]).splitlines() == [
        "| settings | epochs | loss |",
        "|---|--:|--:|",
        "| base | 0 | - |",
    ]
