# Functions of demo.sh, which sets work (its directory) and home (the server's).
# shellcheck shell=bash
: "${work:?}" "${home:?}"

steps=0 began=0 # headings so far, and when the last began
server=         # process id of the server
jobs=()         # process ids of what puts load on it

heading() {
  began=$SECONDS
  steps=$((steps + 1))
  printf '\n\033[1m%2d. %s\033[0m\n    %s\n' "$steps" "$1" "$2"
}

say() { printf '    %s\n' "$*"; }

ok() { printf '    ok (%d s): %s\n' "$((SECONDS - began))" "$*"; }

fail() {
  printf '    FAILED: %s\n' "$*" >&2
  exit 1
}

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || fail "$program is missing; install it (keywright and keywrightd: make build)"
  done
}

# finish ends what the demo started, by process id, and removes what it made.
finish() {
  local code=$? pid
  trap - EXIT
  for pid in "${jobs[@]}" $server; do kill -KILL "$pid" 2>/dev/null || true; done
  wait
  if [ "$code" != 0 ]; then
    printf '\nThe demo failed after step %s. The end of the server'\''s log:\n' "$steps" >&2
    tail -n 20 "$work/server.log" >&2 || true
    [ "$code" = 130 ] || code=1
  fi
  cd /
  rm -rf "$work"
  exit "$code"
}

# start_server [ARGUMENT...] starts it in development mode, or with those arguments, on
# free ports and waits until it is ready: sets server, grpc and rest. Returns the exit
# code of a server that ends before.
start_server() {
  rm -f server.out # what the last one said
  [ $# != 0 ] || set -- dev --dir "$home" --port-base 0
  keywrightd "$@" >server.out 2>>server.log & server=$!
  local try ready
  for ((try = 0; try < 600; try++)); do
    if ready=$(grep -so 'ready: grpc [^,]*, rest [^,]*' server.out); then
      rest=${ready#*, rest } ready=${ready#ready: grpc }
      grpc=${ready%%,*}
      export grpc rest
      return 0
    fi
    if ! kill -0 "$server" 2>/dev/null; then
      wait "$server" || { local code=$?; server=; return "$code"; }
    fi
    sleep 0.1
  done
  fail "the server was not ready within a minute"
}

# restart_server starts it after a SIGKILL. SoftHSM2 keeps its token in files that
# a kill can truncate; then they are put back from the copy made before it. The
# root key never changes, so an older copy is as good.
restart_server() {
  start_server && return
  say "the kill broke SoftHSM2's files: putting the token back from its copy"
  rm -rf "$home/token"
  cp -a "$1" "$home/token"
  start_server || fail "the server does not start again"
}

# softhsm_module prints where SoftHSM2 is.
softhsm_module() {
  local path
  for path in "${SOFTHSM2_MODULE:-}" /usr/lib/softhsm/libsofthsm2.so /usr/lib/*-linux-*/softhsm/libsofthsm2.so \
    /usr/lib64/pkcs11/libsofthsm2.so /usr/lib/pkcs11/libsofthsm2.so; do
    [ ! -f "$path" ] || { echo "$path"; return; }
  done
  fail "SoftHSM2 is missing: make softhsm"
}

stop_server() {
  kill -TERM "$server"
  wait "$server" || fail "the server ended with exit code $?"
  server=
}

# same_after FILE COMMAND... runs a command that ends with --out OUTPUT somewhere,
# and compares that output with FILE.
same_after() {
  local expected=$1 output='' previous='' word
  shift
  for word in "$@"; do
    [ "$previous" != --out ] || output=$word
    previous=$word
  done
  rm -f "$output"
  "$@"
  cmp "$output" "$expected"
}

# refused CODE COMMAND... demands that exit code, and that no output file appeared.
# The message is left in the file refusal.
refused() {
  local expected=$1 code=0
  shift
  "$@" >/dev/null 2>refusal || code=$?
  [ "$code" = "$expected" ] || fail "exit code $code instead of $expected: $* ($(cat refusal))"
  [ ! -e none ] || fail "there is output all the same: $*"
}

# version_of prints the key version in a ciphertext's header (docs/format.md).
version_of() { echo $((0x$(od -An -tx1 -j9 -N4 "$1" | tr -d ' \n'))); }

# data_of prints an envelope without its header and wrapped data key.
data_of() { tail -c +$((11 + 0x$(od -An -tx1 -j8 -N2 "$1" | tr -d ' \n'))) "$1"; }

# rest KEY:METHOD FILE FIELD PIECE ANSWER posts a file as FIELD and prints the
# field ANSWER. Ciphertexts stay base64 in files, plaintexts are bytes.
rest() {
  local encode=(base64 -w0) decode=(tr -d '\n')
  [ "$3" = plaintext ] || encode=(cat)
  [ "$5" = ciphertext ] || decode=(base64 -d)
  {
    printf '{"%s":"' "$3"
    "${encode[@]}" "$2"
    printf '","encryption_context":{"piece":"%s"}}' "$4"
  } | curl --silent --show-error --fail-with-body --cacert "$home/tls/ca.pem" --header @app.header \
    --header 'Content-Type: application/json' --data-binary @- "https://$rest/v1/namespaces/demo/keys/$1" |
    tr '"' '\n' | grep -x -A 2 "$5" | tail -n 1 | "${decode[@]}"
}

# rotate_until_gone notes each acknowledged new version in the file rotations.
rotate_until_gone() {
  local answer code=0
  while answer=$(keywright key rotate "$1" -o json 2>rotate.err) || { code=$?; false; }; do
    sed -n 's/.*"version": *\([0-9]*\).*/\1/p' <<<"$answer" >>rotations
  done
  [ "$code" = 5 ] || { cat rotate.err >&2; return 1; } # 5: the server is away
}

# until_encrypting waits until an encryption more was acknowledged.
until_encrypting() {
  local try encrypted
  encrypted=$(wc -l <journal)
  for ((try = 0; try < 300; try++)); do
    if [ "$(wc -l <journal)" -gt "$encrypted" ]; then return; fi
    sleep 0.1
  done
  fail "nothing was acknowledged within half a minute"
}

# until_under_load waits until an encryption and a rotation more were acknowledged.
until_under_load() {
  local try encrypted rotated
  encrypted=$(wc -l <journal) rotated=$(wc -l <rotations)
  for ((try = 0; try < 300; try++)); do
    if [ "$(wc -l <journal)" -gt "$encrypted" ] && [ "$(wc -l <rotations)" -gt "$rotated" ]; then return; fi
    sleep 0.1
  done
  fail "nothing was acknowledged within half a minute"
}

# check_rotations demands that every acknowledged version is there and enabled.
check_rotations() {
  keywright key versions "$1" -o json >versions.json
  sed -n 's/.*"version": *\([0-9]*\).*/\1/p' versions.json | sort -n >versions
  [ "$(grep -c '"state": *"ENABLED"' versions.json)" = "$(wc -l <versions)" ] || fail "a version is not enabled"
  [ -z "$(comm -23 <(sort rotations) <(sort versions))" ] || fail "an acknowledged rotation is lost"
}
