"""Ask pip-audit whether a locked requirement has a known vulnerability.

    python scripts/audit.py requirements/run.txt

Where the database of vulnerabilities answers, the audit is strict: one requirement that is vulnerable or
could not be audited fails it. Where it does not, pip-audit by itself either ends in a traceback or skips
every requirement and exits 0, so this says in one line that nothing was audited, and exits 0.
"""

import json
import subprocess
import sys

PIP_AUDIT = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--format", "json"]
UNREACHABLE = ("ConnectionError", "ProxyError", "SSLError", "Timeout", "Could not connect", "ServiceError")


def main(lock: str) -> int:
    run = subprocess.run([*PIP_AUDIT, "--requirement", lock], capture_output=True, text=True, check=False)
    if not run.stdout.strip():
        return without_a_report(lock, run.stderr)

    dependencies = json.loads(run.stdout)["dependencies"]
    skipped = [dependency for dependency in dependencies if "skip_reason" in dependency]
    if len(skipped) == len(dependencies):
        print(f"pip-audit: skipped, the database of vulnerabilities knows nothing of {lock} from here")
        return 0

    vulnerable = [dependency for dependency in dependencies if dependency.get("vulns")]
    for dependency in vulnerable:
        for found in dependency["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            print(f"{dependency['name']} {dependency['version']}: {found['id']}, fixed in {fixed}")
    for dependency in skipped:
        print(f"{dependency['name']}: {dependency['skip_reason']}")
    print(f"pip-audit: {len(vulnerable)} of {len(dependencies)} requirements in {lock} are vulnerable")
    return 1 if vulnerable or skipped else 0


def without_a_report(lock: str, stderr: str) -> int:
    """Tell an unreachable database (skipped) from any other failure of pip-audit (failed)."""
    if any(sign in stderr for sign in UNREACHABLE):
        print(f"pip-audit: skipped, the database of vulnerabilities cannot be reached to audit {lock}")
        return 0
    print(stderr, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
