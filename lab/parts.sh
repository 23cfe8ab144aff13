# shellcheck shell=bash
# Parts of a long test run, for `source`: all of them run, also when one fails. The summary says what ran, what did not, and why a part
# failed: of a run elsewhere often only the last lines are kept. Logs of parts that failed stay in report/tests.

passed=() failed=() skipped=() elsewhere=()

# What a log says about failed tests and plays, in at most 12 lines.
reasons() {
  sed -e 's/\x1b\[[0-9;]*m//g' -e 's/^[ │]*//' "$1" | awk '
    /^=+ short test summary info =+$/ { listed = 1; next }
    /^=+ .* in [0-9.]+s/ { listed = 0 }
    listed && !/^(SKIPPED|XFAIL)/ || /^\[ERROR\]: / || /^fatal: / || /^CRITICAL /
  ' | cut -c1-300 | awk '!seen[$0]++' | tail -n 12
}

# part NAME COMMAND...: runs it, remembers how it ended, fails as it does.
part() {
  local name=$1 started=$SECONDS log kept result out tee
  shift
  log=$(mktemp)
  echo "==> $name …"
  # -i: Ctrl-C ends the tests, which then say what they removed.
  exec {out}> >(exec tee -i "$log")
  tee=$!
  "$@" >&"$out" 2>&1
  result=$?
  exec {out}>&-
  # A process that a failed test left behind may keep the pipe open: nobody waits for it longer than 2 s.
  for _ in {1..20}; do kill -0 "$tee" 2>/dev/null && sleep 0.1; done
  if [ "$result" -eq 0 ]; then
    passed+=("$name in $((SECONDS - started)) s")
    echo "==> $name … passed in $((SECONDS - started)) s"
    rm "$log"
  else
    kept=report/tests/${name//[^A-Za-z0-9]/-}.log
    mkdir -p "${kept%/*}"
    mv "$log" "$kept"
    failed+=("$name after $((SECONDS - started)) s: $kept"$'\n'"$(reasons "$kept" | sed 's/^/             /')")
    echo "==> $name … FAILED after $((SECONDS - started)) s"
  fi
  return "$result"
}

# Says how all parts ended; fails when one failed or could not run.
summary() {
  echo
  echo "==> Tests"
  for line in "${passed[@]}"; do echo "    passed   $line"; done
  for line in "${elsewhere[@]}"; do echo "    not part of this run  $line"; done
  for line in "${skipped[@]}"; do echo "    not run  $line"; done
  for line in "${failed[@]}"; do echo "    FAILED   $line"; done
  echo "==> ${#passed[@]} passed, ${#failed[@]} failed, ${#skipped[@]} not run, $SECONDS s"
  [ "${#failed[@]}" -eq 0 ] && [ "${#skipped[@]}" -eq 0 ]
}
