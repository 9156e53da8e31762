"""Faults that would let somebody past are noticed by the tests that say so; see sample.toml."""

import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import mutate
import pytest

MUTANTS = tomllib.loads((Path(__file__).parent / "sample.toml").read_text())["mutant"]


@pytest.mark.slow
def test_the_sample_is_noticed(tmp_path):
    trees = SimpleQueue()
    for number in range(2):
        trees.put(Path(shutil.copytree(mutate.ROOT, tmp_path / str(number), ignore=mutate.NOT_COPIED)))
    named = list(dict.fromkeys(test for mutant in MUTANTS for test in mutant["tests"]))

    def run(tests, mutant=None):
        tree = trees.get()
        try:
            if mutant is None:
                return mutate.run_tests(tree, [f"tests/{test}" for test in tests], 600)
            path = tree / mutate.PACKAGE / mutant["file"]
            source = path.read_bytes()
            mutate.write(path, source.replace(mutant["old"].encode(), mutant["new"].encode()))
            try:
                return mutate.run_tests(tree, [f"tests/{test}" for test in tests], 180)
            finally:
                mutate.write(path, source)
        finally:
            trees.put(tree)

    with ThreadPoolExecutor(2) as pool:
        sound = pool.submit(run, named)
        results = list(pool.map(lambda mutant: run(mutant["tests"], mutant), MUTANTS))
    status, output = sound.result()
    assert status == 0, output  # they pass without a fault, so that it is the fault which they notice
    # 1: a test failed. Anything else would be no word about the fault, but about the run.
    missed = [mutant["name"] for mutant, (status, _) in zip(MUTANTS, results, strict=True) if status != 1]
    assert missed == [], [output[-2000:] for status, output in results if status != 1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_the_sample_fits_the_code(mutant):
    source = (mutate.ROOT / mutate.PACKAGE / mutant["file"]).read_text()
    assert source.count(mutant["old"]) == 1
    compile(source.replace(mutant["old"], mutant["new"]), mutant["file"], "exec")


@pytest.mark.slow
def test_what_changes_nothing_fits_the_code():
    known = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text()).get("equivalent", [])
    for file in sorted({one["file"] for one in known}):
        mutants = list(mutate.mutants_of(file, (mutate.ROOT / mutate.PACKAGE / file).read_bytes()))
        those = [one for one in known if one["file"] == file]
        assert [one for one in those if not any(mutate.is_known(mutant, [one]) for mutant in mutants)] == []


def test_faults():
    source = b"""def f(a, b):
    if not a and b < 1:
        raise ValueError
    return [a is b, True]
"""
    assert {(one.line, one.after) for one in mutate.mutants_of("f.py", source)} == {
        (2, "if (not a or b < 1):"),
        (2, "if (b < 1):"),
        (2, "if (not a):"),
        (2, "if (a) and b < 1:"),
        (2, "if not a and (b <= 1):"),
        (2, "if not a and b < (2):"),
        (2, "if not a and b < (0):"),
        (3, "pass"),
        (4, "return None"),
        (4, "return [(a is not b), True]"),
        (4, "return [a is b, False]"),
    }
    assert {one.function for one in mutate.mutants_of("f.py", source)} == {"f"}
