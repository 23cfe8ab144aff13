#!/bin/bash
# Every check, also when one fails; the summary at the end says which.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH

mapfile -t scripts < <(
  git ls-files --cached --others --exclude-standard | while read -r file; do
    [ -f "$file" ] && head -c 32 "$file" | grep -qaE '^#! ?/(usr/)?bin/(env )?(ba|da)?sh' && echo "$file"
  done
)

passed=() failed=()
check() {
  local name=$1 started=$SECONDS
  shift
  echo "==> $name …"
  if "$@"; then
    passed+=("$name")
    echo "==> $name … done in $((SECONDS - started)) s"
  else
    failed+=("$name")
    echo "==> $name … FAILED after $((SECONDS - started)) s"
  fi
}

check "ruff check" ruff check .
check "ruff format" ruff format --check .
# The collection is checked where Ansible sees it: below its name, through the symbolic link.
check mypy mypy src lab tests bench collections/ansible_collections/tortie/cluster/plugins
check yamllint yamllint --strict .
check ansible-lint ansible-lint --offline
check shellcheck shellcheck --external-sources "${scripts[@]}"

echo "==> lint: ${#passed[@]} passed${passed[*]:+ (${passed[*]})}, ${#failed[@]} failed${failed[*]:+ (${failed[*]})}"
[ "${#failed[@]}" -eq 0 ]
