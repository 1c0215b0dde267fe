"""Files that somebody made to do harm: the tests that hold them off, run and counted."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from tests.reliability.result import Result, Scale
from tests.support.paths import ROOT

CHECKPOINTS, SIDECARS = "tests/export/model/test_checkpoint.py", "tests/runtime/engines/test_sidecar.py"
TESTS: dict[str, list[str]] = {
    "code in checkpoints: not run": [
        f"{CHECKPOINTS}::test_code_in_a_checkpoint_is_not_run",
        "tests/train/test_import_checkpoint.py::test_code_in_a_file_does_not_run",
        "tests/train/test_import_checkpoint.py::test_what_is_of_the_operating_system_is_refused",
    ],
    "sizes that would exhaust the machine: refused before memory is taken": [
        f"{CHECKPOINTS}::test_a_structure_that_would_exhaust_the_machine_is_refused_before_it_is_built",
        f"{CHECKPOINTS}::test_an_archive_whose_parts_claim_more_than_it_holds_is_refused_before_it_is_read",
        f"{SIDECARS}::test_a_huge_sidecar_is_refused_without_reading_it",
        f"{SIDECARS}::test_deep_and_long_json_is_refused",
        "tests/runtime/engines/test_external_data.py::test_a_file_larger_than_any_onnx_is_refused_unread",
        "tests/runtime/images/test_to_rgb.py::test_the_bound_is_our_own_and_says_the_cure",
        "tests/runtime/images/test_to_rgb.py::test_a_large_picture_takes_little_more_than_itself",
    ],
    "names that are paths: never followed": [
        "tests/export/test_calibration_data.py::test_a_manifest_that_is_no_manifest_is_refused",
        "tests/runtime/sinks/test_disk_cap.py::test_a_restart_knows_what_was_written_before",
        "tests/runtime/sinks/test_disk_cap.py::test_what_the_sink_did_not_write_stays",
    ],
    "weights outside of the ONNX, operator sets from nowhere: refused": ["tests/runtime/engines/test_external_data.py"],
    "ONNX files that are none of ours: one line": ["tests/export/test_hostile_onnx.py"],
}


def run(scale: Scale) -> list[Result]:
    """Run the tests of each row; a test that is skipped or missing counts as wrong."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        names = [name for tests in TESTS.values() for name in tests]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *names]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        cases = list(ElementTree.parse(report).iter("testcase"))  # our own pytest wrote it
    return [_row(attack, tests, cases, said) for attack, tests in TESTS.items()]


def _row(attack: str, tests: list[str], cases: "list[ElementTree.Element]", said: str) -> Result:
    found: list[ElementTree.Element] = []
    missing = 0
    for test in tests:
        file, _, name = test.partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        mine = [
            case
            for case in cases
            if case.get("classname") == module and (not name or str(case.get("name")).partition("[")[0] == name)
        ]
        missing += not mine
        found += mine
    bad = [case for case in found if len([part for part in case if part.tag in ("failure", "error", "skipped")])]
    details = f"{len(tests)} test files or functions" if not bad and not missing else said.strip()[-200:]
    return Result("hostile files", attack, len(found), len(bad) + missing, " ".join(details.split()))


if __name__ == "__main__":
    for result in run(Scale(True, 0, 0, 0, 0)):
        print(result)
