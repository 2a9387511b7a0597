#!/usr/bin/env bash
# Does Keywright's main job on real input against a real server and a real token,
# and checks each result. Run it by `make demo`, which builds bin/ first.
#
# Everything happens below a temporary directory and on free ports of loopback; at
# the end both are given back. Exit 0 means that every check held.
set -Eeuo pipefail
export LC_ALL=C
unset KEYWRIGHT_{ADDR,CA_FILE,CERT_FILE,KEY_FILE,TOKEN,TOKEN_FILE,NAMESPACE,CONFIG} SOFTHSM2_CONF

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/keywright-demo.XXXXXX")
home=$work/server
PATH=$root/bin:$PATH

# shellcheck source=bench/demo/lib.sh
. "$root/bench/demo/lib.sh"
trap finish EXIT
trap 'printf "    FAILED: line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT TERM
cd "$work"
need keywright keywrightd go curl openssl cmp base64 split python3
export KEYWRIGHT_STATE_DIR=$work/state

heading "A server over a PKCS#11 token" "a root key is made in the token; no key is ever in a file in the clear"
start_server
export KEYWRIGHT_CONFIG=$home/keywright.yaml
keywright status | grep -E '^(HSM|Token|Root key|Audit key) '
ok "$(keywright whoami | sed -n 's/^Principal *//p') is the administrator"

heading "Keys, a policy and a token" "who manages keys cannot use them; an application can use them and cannot manage them"
keywright namespace create demo >/dev/null
keywright key create demo/records --label app=demo >/dev/null
keywright key create demo/ledger >/dev/null
keywright key create demo/archive --algorithm AES_256_GCM >/dev/null
keywright key create demo/release --algorithm ECDSA_P256_SHA256 >/dev/null
keywright key list demo
keywright policy put demo/app >/dev/null <<'CEDAR'
permit (
  principal == Token::"app",
  action in [Action::"encrypter", Action::"decrypter", Action::"signer"],
  resource in Namespace::"demo"
);
CEDAR
keywright token create app --out app.token 2>/dev/null
keywright token create stranger --out stranger.token 2>/dev/null
(umask 077 && printf 'Authorization: Bearer %s\n' "$(cat app.token)" >app.header)
app() { keywright --token-file app.token "$@"; }
go build -C "$root" -o "$work/client" ./bench/demo/client
client() { ./client -addr "$grpc" -ca-file "$home/tls/ca.pem" -token-file app.token -namespace demo "$@"; }
ok "4 keys, 1 policy, 2 tokens"

heading "Encrypt 100 MB and a short text: CLI" "the file is encrypted here under a data key that the server wraps; the text by the server"
head -c 100000000 /dev/urandom >file
echo 'attack at dawn' >text
app encrypt demo/records --in file --out file.cli
app encrypt demo/records --in text --out text.cli --context tenant=acme
same_after file app decrypt demo/records --in file.cli --out file.out
same_after text app decrypt demo/records --in text.cli --out text.out --context tenant=acme
refused 1 app decrypt demo/records --in text.cli --out none --context tenant=other
ok "both came back as they were; with another encryption context the text stays closed"

heading "Encrypt 100 MB and a short text: gRPC" "a program's view: the generated client, TLS and a bearer token, pieces of 1 MiB"
client -key records encrypt <file >file.grpc
client -key records encrypt <text >text.grpc
client -key records decrypt <file.grpc | cmp - file
client -key records decrypt <text.grpc | cmp - text
ok "both came back as they were"

heading "Encrypt 100 MB and a short text: curl" "REST over TLS with the local CA; each piece is bound to its number"
mkdir pieces
split --bytes=2500000 --numeric-suffixes --suffix-length=3 file pieces/plain.
for piece in pieces/plain.*; do
  rest records:encrypt "$piece" plaintext "${piece##*.}" ciphertext >"${piece/plain/sealed}"
done
rest records:encrypt text plaintext text ciphertext >text.curl
for piece in pieces/sealed.*; do
  rest records:decrypt "$piece" ciphertext "${piece##*.}" plaintext
done | cmp - file
rest records:decrypt text.curl ciphertext text plaintext | cmp - text
ok "both came back as they were, $(find pieces -name 'sealed.*' | wc -l) requests each way"

heading "Rotate" "new ciphertexts are under the new version; the old ones still open, found by their headers"
keywright key rotate demo/records >/dev/null
app encrypt demo/records --in text --out text.new
[ "$(version_of text.cli) $(version_of text.new)" = "1 2" ] || fail "versions are $(version_of text.cli) and $(version_of text.new)"
same_after file app decrypt demo/records --in file.cli --out file.out
same_after text app decrypt demo/records --in text.cli --out text.out --context tenant=acme
same_after text app decrypt demo/records --in text.new --out text.out
client -key records decrypt <file.grpc | cmp - file
keywright key versions demo/records
ok "version 1 and version 2 both decrypt"

heading "Re-encrypt" "under the new version and under another key; of an envelope only the wrapped data key changes"
app reencrypt demo/records --in text.cli --out text.again --context tenant=acme
app reencrypt demo/records --in text.cli --out text.archive --context tenant=acme --to demo/archive
app reencrypt demo/records --in file.cli --out file.again
[ "$(version_of text.again)" = 2 ] || fail "re-encrypted to version $(version_of text.again)"
cmp <(data_of file.cli) <(data_of file.again)
! cmp --silent file.cli file.again || fail "the data key was not wrapped anew"
ok "the 100 MB did not have to be encrypted again"

heading "Disable a version" "what only version 1 opens is refused until it is enabled again; nothing else is"
keywright key disable demo/records --version 1 --yes >/dev/null
refused 6 app decrypt demo/records --in text.cli --out none --context tenant=acme
refused 6 app decrypt demo/records --in file.cli --out none
same_after text app decrypt demo/records --in text.again --out text.out --context tenant=acme
same_after text app decrypt demo/archive --in text.archive --out text.out --context tenant=acme
same_after file app decrypt demo/records --in file.again --out file.out
refused 6 keywright key disable demo/records --version 2 --yes
keywright key enable demo/records --version 1 >/dev/null
same_after text app decrypt demo/records --in text.cli --out text.out --context tenant=acme
ok "refused while disabled, back after; the primary version cannot be disabled"

heading "Tampering" "a changed or cut ciphertext yields an error and no output"
{ head -c 50000000 file.cli; printf 'x'; tail -c +50000002 file.cli; } >file.bad
head -c 99000000 file.cli >file.cut
{ head -c 40 text.new; printf 'x'; tail -c +42 text.new; } >text.bad
for bad in file.bad file.cut text.bad; do refused 1 app decrypt demo/records --in "$bad" --out none; done
ok "one byte is enough"

heading "Sign" "OpenSSL verifies with the exported public key, without Keywright"
signed=$root/bin/keywrightd
app sign demo/release --in "$signed" --out signature 2>/dev/null
keywright key public-key demo/release >public.pem
openssl dgst -sha256 -verify public.pem -signature signature "$signed"
{ cat "$signed"; echo; } >signed.bad
! openssl dgst -sha256 -verify public.pem -signature signature signed.bad >/dev/null || fail "OpenSSL accepts another file"
app verify demo/release --in "$signed" --signature signature >/dev/null
refused 1 app verify demo/release --in signed.bad --signature signature
ok "$(wc -c <"$signed") bytes signed; another file is refused by both"

heading "A key that never leaves the token" "made there, used there, rotated and destroyed there; OpenSSL verifies what it signs"
keywright key create demo/vault --algorithm ECDSA_P256_SHA256 --protection hsm >/dev/null
keywright key describe demo/vault --version 1 | tee described
grep -q '^Origin  *LOCAL, NEVER_EXTRACTABLE, ALWAYS_SENSITIVE$' described || fail "the token does not say that the key was made there and never can leave"
app sign demo/vault --in text --out vault.1 2>/dev/null
keywright key public-key demo/vault >vault.pem
openssl dgst -sha256 -verify vault.pem -signature vault.1 text
keywright key rotate demo/vault >/dev/null
app sign demo/vault --in text --out vault.2 2>/dev/null
app verify demo/vault --in text --signature vault.1 --version 1 >/dev/null
app verify demo/vault --in text --signature vault.2 --version 2 >/dev/null
keywright key destroy demo/vault --version 1 --delay 0s --yes >/dev/null
until keywright key describe demo/vault --version 1 -o json | tee described | grep -q '"state": *"DESTROYED"' && ! grep -q removing described; do sleep 0.2; done
refused 6 app verify demo/vault --in text --signature vault.1 --version 1
app verify demo/vault --in text --signature vault.2 --version 2 >/dev/null
keywright audit list --action RemoveTokenKey --limit 1
ok "version 1 is gone from the token, version 2 signs"

heading "Bring your own key" "made by OpenSSL, wrapped here to a key in the HSM; both sign with it"
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.pem 2>/dev/null || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.pem 2>/dev/null
openssl pkey -in own.pem -pubout -out own.public
for protection in software hsm; do
  keywright key import demo/own-$protection --algorithm ECDSA_P256_SHA256 --from own.pem --protection $protection | grep -E '^(Key|Protection|Material) '
  app sign demo/own-$protection --in text --out own.signature 2>/dev/null
  openssl dgst -sha256 -verify own.public -signature own.signature text
done
openssl dgst -sha256 -sign own.pem -out own.signature text
app verify demo/own-hsm --in text --signature own.signature >/dev/null
refused 2 keywright key import demo/wrong --algorithm ECDSA_P384_SHA384 --from own.pem
ok "the key is the same inside and outside; a key on another curve is refused"

heading "Kill the worker" "the process that holds the PKCS#11 library dies again and again; keys in memory do not notice"
./client -addr "$grpc" -ca-file "$home/tls/ca.pem" -token-file app.token -namespace demo -key archive -journal worker.journal load >worker.load & jobs=($!)
until [ -s worker.journal ]; do sleep 0.1; done
for round in 1 2 3; do
  cp -a "$home/token" "worker.token.$round"
  kill -KILL "$(pgrep -P "$server" -f hsm-worker)"
  until app sign demo/vault --in text --out vault.signature 2>/dev/null; do sleep 0.1; done
  rm vault.signature
done
kill -TERM "${jobs[0]}"
wait "${jobs[0]}" || fail "a call for a software key failed while workers were killed"
jobs=()
say "$(cat worker.load) encryptions under a software key meanwhile, none failed"
ok "3 workers killed, each replaced; the token's keys sign again"

heading "Wrap a data key" "for programs that encrypt by themselves: keep the wrapped key beside the data"
app datakey demo/records --out datakey.wrapped --plaintext-out datakey >/dev/null
same_after datakey app decrypt demo/records --in datakey.wrapped --out datakey.out
[ "$(wc -c <datakey)" = 32 ] || fail "the data key has $(wc -c <datakey) bytes"
ok "unwrapped to the same 32 bytes"

heading "Deny" "no policy, no use; and no hint whether the key exists"
refused 4 keywright --token-file stranger.token encrypt demo/records --in text --out none
cp refusal stranger.refusal
refused 4 keywright --token-file stranger.token encrypt demo/no-such-key --in text --out none
cmp <(sed 's/(request.*//' stranger.refusal) <(sed 's/(request.*//' refusal)
refused 4 keywright --token-file stranger.token decrypt demo/records --in text.new --out none
refused 4 keywright encrypt demo/records --in text --out none
refused 4 app key rotate demo/records
refused 4 keywright --config /dev/null --addr "$grpc" --ca-file "$home/tls/ca.pem" status
cat stranger.refusal
ok "the stranger, the administrator and the nameless may not use it, the application may not rotate it"

heading "Explain" "why somebody was refused, what would change it, and who may"
refusal=$(keywright audit search --principal 'Token::"stranger"' --action Encrypt -n demo --key records --limit 1 | awk '{print $1}')
keywright policy explain --entry "$refusal" >explained
cat explained
grep -q 'no policy permits' explained || fail "the explanation does not say that no policy permits it"
keywright policy explain demo/records --principal 'Token::"app"' --action Encrypt | grep -q app || fail "the policy that permits is not named"
keywright policy who demo/records Decrypt | tee who
grep -q 'Token::"app"' who || fail "the application is not among those who may decrypt"
! grep -q stranger who || fail "the stranger is among those who may decrypt"
cat >cases <<'CASES'
- {name: the application encrypts, principal: 'Token::"app"', action: Encrypt, resource: demo/records, expect: allow}
- {name: the stranger does not, principal: 'Token::"stranger"', action: Encrypt, resource: demo/records, expect: deny}
- {name: the administrator does not, principal: 'User::"local:CN=admin"', action: Decrypt, resource: demo/records, expect: deny}
CASES
keywright policy test cases
echo 'permit (principal == Token::"stranger", action == Action::"Encrypt", resource in Namespace::"demo");' >wider
refused 1 keywright policy test cases --change demo/wider=wider
keywright policy diff --change demo/wider=wider | tee differs
grep -q stranger differs || fail "the diff does not show the stranger's refusals"
ok "explained, tested and compared, without changing anything"

heading "Revoke" "a token is taken back with all that was made with it, at once"
keywright policy put demo/maker >/dev/null <<'CEDAR'
permit (principal == Token::"batch", action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"demo");
CEDAR
keywright policy put maker >/dev/null <<'CEDAR'
permit (principal == Token::"batch", action == Action::"CreateToken", resource);
CEDAR
keywright token create batch --out batch.token 2>/dev/null
keywright --token-file batch.token token create batch --action encrypter --resource demo/records --ttl 10m --out child.token 2>/dev/null
keywright --token-file child.token encrypt demo/records --in text --out none
rm none
refused 4 keywright --token-file child.token decrypt demo/records --in text.new --out none
refused 4 keywright --token-file child.token encrypt demo/ledger --in text --out none
refused 2 keywright --token-file batch.token token create batch --ttl 23h
keywright token revoke "$(keywright --token-file batch.token whoami -o json | sed -n 's/.*"tokenId": *"\([0-9a-f]*\)".*/\1/p')" >/dev/null
refused 4 keywright --token-file batch.token encrypt demo/records --in text --out none
refused 4 keywright --token-file child.token encrypt demo/records --in text --out none
ok "the child could do less than its parent, and ended with it"

heading "Kill the server" "SIGKILL in the middle of rotations and encryptions; nothing acknowledged is lost"
touch journal rotations
for round in 1 2 3; do
  cp -a "$home/token" "token.$round"
  rotate_until_gone demo/ledger & jobs+=($!)
  client -key ledger -journal journal load >"load.$round" & jobs+=($!)
  until_under_load
  sleep "1.$((RANDOM % 900 + 100))"
  kill -KILL "$server"
  wait "$server" 2>/dev/null || true
  for job in "${jobs[@]}"; do wait "$job" || fail "the load ended otherwise than by the server's death"; done
  jobs=()
  restart_server "token.$round"
  say "round $round: $(cat "load.$round") encryptions acknowledged, rotated up to version $(tail -n 1 rotations)"
done
checked=$(client -key ledger -journal journal check)
read -r records versions <<<"$checked"
[ "$records" = "$(awk '{n += $1} END {print n}' load.*)" ] || fail "$records records were checked"
check_rotations demo/ledger
same_after file app decrypt demo/records --in file.cli --out file.out
same_after text app decrypt demo/records --in text.cli --out text.out --context tenant=acme
ok "$records records under $versions versions decrypted, $(wc -l <rotations) rotations all there"

heading "The audit log of all that" "who did what with which key, and how it ended; never what was encrypted"
keywright audit list --all -o json >audit.json
for action in CreateKey PutPolicy CreateToken Encrypt Decrypt ReEncrypt RotateKey DisableVersion Sign GenerateDataKey Start; do
  keywright audit list --action "$action" --limit 1
done
keywright audit list --outcome PERMISSION_DENIED --limit 4
say "$(wc -l <audit.json) lines, one of them as it stands in the file:"
grep -m 1 '"tenant":"acme"' audit.json
audited='"action":"Encrypt","namespace":"demo","key":"ledger",.*"outcome":"OK"'
[ "$(grep -c "$audited" audit.json)" -ge "$records" ] || fail "acknowledged encryptions without a line"
audited='"phase":"outcome",.*"action":"RotateKey","namespace":"demo","key":"ledger",.*"outcome":"OK"'
[ "$(grep -c "$audited" audit.json)" -ge "$(wc -l <rotations)" ] || fail "acknowledged rotations without a line"
[ "$(grep -c '"outcome":"PERMISSION_DENIED"' audit.json)" -ge 5 ] || fail "denials without a line"
! grep -qF -e 'attack at dawn' -e "$(base64 <text)" -e "$(cat app.token)" audit.json || fail "the log holds a plaintext or a token"
ok "each acknowledged operation has its line; no plaintext and no token is among them"

heading "Rekey" "a new secret for the namespace; all keys are sealed anew under load, and no call fails"
./client -addr "$grpc" -ca-file "$home/tls/ca.pem" -token-file app.token -namespace demo -key ledger -journal journal load >load.rekey & jobs=($!)
until_encrypting
keywright namespace rekey demo --wait >/dev/null
kill -TERM "${jobs[0]}"
wait "${jobs[0]}" || fail "a call failed while the namespace was rekeyed"
jobs=()
keywright namespace describe demo
checked=$(client -key ledger -journal journal check)
say "$(cat load.rekey) encryptions during the rekey; all ${checked% *} of the journal decrypt"
same_after file app decrypt demo/records --in file.cli --out file.out
ok "the old secret is gone from the store"

heading "Prove" "an entry, and that it is in the log that the HSM signed; checked without the server"
sleep 1.5 # uses are signed within about a second
cp -a "$home/audit" audit.older
app decrypt demo/records --in text.new --out text.out
entry=$(keywright audit search --principal 'Token::"app"' --action Decrypt -n demo --key records --outcome OK --limit 1 | awk '{print $1}')
sleep 1.5
keywright audit prove "$entry" --out decrypt.proof
keywright audit checkpoint --out kept.checkpoint
vkey=$(keywright audit checkpoint 2>&1 >/dev/null | sed -n 's/.*signed by \([^;]*\);.*/\1/p')
keywright audit check-proof decrypt.proof --key "$vkey"
sed 's/^index .*/index 1/' decrypt.proof >false.proof
refused 1 keywright audit check-proof false.proof --key "$vkey"
ok "entry $entry is proved by $(wc -c <decrypt.proof) bytes"

heading "Stop, and verify the log offline" "by the command line and by a second verifier, which shares no code with it"
stop_server
log=$home/audit
keywright audit verify "$log" --key "$vkey" --checkpoint kept.checkpoint
python3 "$root/docs/verify_audit.py" "$log" --key "$vkey" --checkpoint kept.checkpoint
ok "both say that the log is what was signed"

heading "Tamper with copies of the log" "one byte changed, an end cut off: both verifiers name the entry"
victim=$((entry / 2))
cp -a "$log" changed
segment=$(ls changed/*.jsonl | head -n 1)
sed -i "$((victim + 1))s/\"outcome\":\"./\"outcome\":\"X/;$((victim + 1))s/\"phase\":\"i/\"phase\":\"X/" "$segment"
! cmp --silent "$segment" "$log/$(basename "$segment")" || fail "nothing was changed"
refused 1 keywright audit verify changed --key "$vkey"
grep "entry $victim" refusal || fail "the changed entry is not named: $(cat refusal)"
! python3 "$root/docs/verify_audit.py" changed --key "$vkey" >second || fail "the second verifier finds nothing"
grep "entry $victim" second || fail "the second verifier does not name it: $(cat second)"
keywright audit verify audit.older --key "$vkey" >/dev/null # cut at a checkpoint, it is whole in itself
lines=$(cat audit.older/*.jsonl | wc -l)
refused 1 keywright audit verify audit.older --key "$vkey" --checkpoint kept.checkpoint
grep "entry $lines" refusal || fail "the cut is not named: $(cat refusal)"
! python3 "$root/docs/verify_audit.py" audit.older --key "$vkey" --checkpoint kept.checkpoint >second || fail "the second verifier finds nothing"
grep "entry $lines" second || fail "the second verifier does not name it: $(cat second)"
ok "entry $victim was changed, and from entry $lines on the log is missing"

heading "Put the store back" "to an older copy: the start is refused, by name of the first change that is missing"
cp -a "$home/store" store.older
start_server
keywright key disable demo/records --version 1 --yes >/dev/null
stop_server
mv "$home/store" store.newer
cp -a store.older "$home/store"
if start_server; then fail "the server started with an older store"; else code=$?; fi
[ "$code" = 14 ] || fail "exit code $code instead of 14"
grep -h 'DisableVersion demo/records version 1' server.log | tail -n 1
rm -rf "$home/store"
mv store.newer "$home/store"
start_server
refused 6 app decrypt demo/records --in text.cli --out none --context tenant=acme
ok "with the right store it starts, and the version is still disabled"

heading "SOPS" "the real sops, which takes Keywright for Vault: a file of secrets and back, and after a rotation"
(cd "$root/server/vault/interop" && go build -o "$work/sops" github.com/getsops/sops/v3/cmd/sops)
keywright namespace create transit >/dev/null
keywright policy put transit/sops >/dev/null <<'CEDAR'
permit (principal == Token::"sops", action, resource in Namespace::"transit");
CEDAR
keywright token create sops --out sops.token 2>/dev/null
stop_server
cat >vault.yaml <<YAML
data_dir: $home
hsm: {module: $(softhsm_module), token_label: keywright-dev, pin: {file: $home/token/pin}}
listen: {grpc: "127.0.0.1:0", rest: "127.0.0.1:0", metrics: "127.0.0.1:0"}
vault: {address: "127.0.0.1:0"}
YAML
SOFTHSM2_CONF=$home/token/softhsm2.conf start_server serve --config vault.yaml
vault=https://$(sed -n 's/.*, vault //p' server.out)
VAULT_TOKEN=$(cat sops.token)
export VAULT_TOKEN VAULT_CACERT=$home/tls/ca.pem
transit() { curl --silent --show-error --fail --cacert "$VAULT_CACERT" --header "X-Vault-Token: $VAULT_TOKEN" --request PUT "$vault/v1/transit/$1" >/dev/null; }
transit keys/files
printf 'password: correct horse\nuser: ann\n' >secrets.yaml
./sops encrypt --hc-vault-transit "$vault/v1/transit/keys/files" secrets.yaml >sealed.yaml
! grep -q horse sealed.yaml || fail "the password is in the file"
./sops decrypt sealed.yaml | cmp - secrets.yaml
transit keys/files/rotate
./sops rotate --in-place sealed.yaml
grep -q 'vault:v2:' sealed.yaml || fail "the file is not under the new version"
./sops decrypt sealed.yaml | cmp - secrets.yaml
! VAULT_TOKEN=$(cat stranger.token) ./sops decrypt sealed.yaml >none 2>refusal || fail "a stranger decrypts the file"
grep -m 1 -o 'enc: vault:v2:.*' sealed.yaml
ok "encrypted, decrypted, rotated; a stranger is refused"

heading "Stop" "SIGTERM lets requests finish"
stop_server
ok "all of it took $SECONDS s"
