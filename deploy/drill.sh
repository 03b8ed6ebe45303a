#!/bin/sh
# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0
#
# The drill: a signing key leaks, and what it signed from then on is taken back.
# The key of provenance rotates three times and signs with each version; version
# 2 leaks at a time T, and version 3 takes over at R. Afterwards cosign, with no
# flag that weakens anything, must refuse exactly what version 2 signed between
# T and R. Each step says what must come of it, and the script fails when
# something else does. `make drill` runs it; `make drill KEYS=vault` runs it with
# the keys in a real Vault.
set -eu

keys=${1:-file}
service=https://provost.localhost
story=drill
. "$(dirname "$0")/steps.sh"

# now is this second. Timestamps have whole seconds, so two that must differ are
# two apart.
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
pass() { sleep 2; }

# sign NAME VERSION: an artifact of that name, its provenance signed by that
# version.
sign() {
	echo "$1" >"$1"
	"$bin/provostd" dev-token --data data --repository acme/app --ref refs/heads/main >build.token
	show 0 "$bin/provost" attest provenance --token-file build.token --bundle "$1.provenance.json" "$1"
	said "key version $2"
}

# cosign CODE ARTIFACT [FLAG...]: cosign about the provenance of an artifact.
cosign() {
	want=$1 name=$2
	shift 2
	show "$want" "$bin/testbed/cosign" verify-blob-attestation --bundle "$name.provenance.json" --type slsaprovenance1 \
		--certificate-identity "$service/signers/provenance" --certificate-oidc-issuer "$service" "$@" "$name"
}

mkdir "$work/home"
cd "$work"
export HOME="$work/home" # where cosign keeps what it learns by TUF

start_vault "$keys"

step "The service, for development, on a free port, with keys in: $keys"
start "$keys"
echo "ready at $PROVOST_URL"

step "Version 1 signs, and the trusted root as everybody has it now"
sign one 1
show 0 "$bin/provost" trust root --trusted-root before.json

step "Version 2 signs, before anything happened"
show 0 "$bin/provost" keys rotate provenance
said 'key version 2'
sign two-before 2

step "T: from now on somebody else has version 2. It signs what nobody should believe"
pass
T=$(now)
pass
sign two-after 2
echo '{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}' >sbom.cdx.json
show 0 "$bin/provost" attest sbom --token-file build.token --sbom sbom.cdx.json --bundle two-after.sbom.json two-after
show 0 "$bin/provost" gate two-after --env prod --vsa two-after.vsa.json

step "R: version 3 takes over, and then version 4"
pass
R=$(now)
show 0 "$bin/provost" keys rotate provenance
said 'key version 3'
pass
sign three 3
show 0 "$bin/provost" keys rotate provenance
said 'key version 4'
sign four 4
show 0 "$bin/provost" keys list

step "Rotation told nobody anything: cosign believes all five with the trusted root from before it"
for name in one two-before two-after three four; do cosign 0 "$name" --trusted-root before.json; done

step "The leak is found out. What does it touch, from T=$T to R=$R?"
show 0 "$bin/provost" keys impact provenance --version 2 --from "$T" --to "$R"
said '1 attestations'
said 'two-after'
unsaid 'two-before'
said '1 times let into an environment'

step "The same as a dry run, which records nothing"
show 0 "$bin/provost" keys revoke provenance --version 2 --from "$T" --to "$R" --dry-run
said 'would revoke provenance version 2'
show 0 "$bin/provost" trust root --trusted-root dry.json
show 0 cmp before.json dry.json

step "Taken back, with the reason"
show 0 "$bin/provost" keys revoke provenance --version 2 --from "$T" --to "$R" --reason 'drill: version 2 leaked'
said 'revoked provenance version 2'
show 0 "$bin/provost" trust root --trusted-root after.json
show 1 cmp before.json after.json
show 0 "$bin/provost" trust show --trusted-root after.json

step "cosign refuses exactly what version 2 signed after T, and believes all else"
for name in one two-before three four; do cosign 0 "$name" --trusted-root after.json; done
cosign 1 two-after --trusted-root after.json
said 'leaf certificate verification failed'

step "provost says why"
show 3 "$bin/provost" verify two-after --bundle two-after.provenance.json --trusted-root after.json
said 'does not verify, at revoked: signed at'
show 0 "$bin/provost" verify two-before --bundle two-before.provenance.json --trusted-root after.json
show 0 "$bin/provost" verify two-after --bundle two-after.sbom.json --trusted-root after.json
show 3 "$bin/provost" gate two-after --env prod

step "The signer goes on"
sign five 4
cosign 0 five --trusted-root after.json

step "Published by TUF (the development service does it when it starts), cosign learns it by itself"
stop
start "$keys"
show 0 "$bin/testbed/cosign" initialize --mirror "$PROVOST_URL/tuf" --root data/tuf/1.root.json
for name in one two-before three four five; do cosign 0 "$name"; done
cosign 1 two-after
said 'leaf certificate verification failed'

step "Done: every step came out as it must"
