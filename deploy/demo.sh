#!/bin/sh
# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0
#
# The story of one artifact, on the programs that `make build` made: attested,
# verified, gated, tampered with and refused. Each step says what must come of
# it, and the script fails when something else does. `make demo` runs it;
# `make demo KEYS=vault` runs it with the keys in a real Vault.
set -eu

keys=${1:-file}
story=demo
. "$(dirname "$0")/steps.sh"

start_vault "$keys"

step "The service, for development, on a free port, with keys in: $keys"
start "$keys"
cat "$work/ready"

# A CI would fetch its token itself. Here the development issuer gives one for
# a build of acme/app on main, as GitHub Actions would word it.
token() { "$bin/provostd" dev-token --data "$work/data" --issuer github --repository acme/app --ref refs/heads/main "$@"; }
token >"$work/build.token"
token --claim runner_environment=self-hosted >"$work/other.token"

step "The artifact: the provost binary that was just built, and its SBOM"
cp "$bin/provost" "$work/app"
cd "$work"
show 0 "$bin/testbed/cyclonedx-gomod" bin -version v0.0.0-demo -json -output app.cdx.json app

step "Provenance: who built it, from where. The caller says only which file"
show 0 "$bin/provost" attest provenance --token-file build.token --bundle app.provenance.json app
said 'key version 1'

step "The SBOM, attested"
show 0 "$bin/provost" attest sbom --token-file build.token --sbom app.cdx.json --bundle app.sbom.json app

step "Verified on this machine alone: a bundle, a trusted root, no network"
show 0 "$bin/provost" trust root --trusted-root trusted_root.json
show 0 "$bin/provost" verify app --bundle app.provenance.json --trusted-root trusted_root.json
show 0 "$bin/provost" verify app --bundle app.sbom.json --trusted-root trusted_root.json

step "May it go to prod? PASS, and the verdict is itself a signed attestation"
show 0 "$bin/provost" gate app --env prod --vsa app.vsa.json
said PASS
show 0 "$bin/provost" verify app --bundle app.vsa.json --trusted-root trusted_root.json

step "One byte flipped: nobody ever attested this"
cp app tampered
printf 'X' | dd of=tampered bs=1 seek=4096 conv=notrunc 2>/dev/null
cmp -s app tampered && printf 'Y' | dd of=tampered bs=1 seek=4096 conv=notrunc 2>/dev/null
show 4 "$bin/provost" gate tampered --env prod
said NO_EVIDENCE
show 3 "$bin/provost" verify tampered --bundle app.provenance.json --trusted-root trusted_root.json

step "Another builder: honest provenance, but not from where prod wants it"
echo 'built somewhere else' >other
show 0 "$bin/provost" attest provenance --token-file other.token --bundle other.provenance.json other
show 0 "$bin/provost" attest sbom --token-file other.token --sbom app.cdx.json --bundle other.sbom.json other
show 3 "$bin/provost" gate other --env prod
said DENY
said slsa.builder_allowed

step "The right builder, but a branch that prod does not take"
"$bin/provostd" dev-token --data "$work/data" --repository acme/app --ref refs/heads/try-it >branch.token
echo 'built from a branch' >branch
show 0 "$bin/provost" attest provenance --token-file branch.token --bundle branch.provenance.json branch
show 0 "$bin/provost" attest sbom --token-file branch.token --sbom app.cdx.json --bundle branch.sbom.json branch
show 3 "$bin/provost" gate branch --env prod
said slsa.source_matches_expectation

step "The key rotates: what was signed before keeps verifying"
show 0 "$bin/provost" keys rotate provenance
said 'key version 2'
show 0 "$bin/provost" verify app --bundle app.provenance.json --trusted-root trusted_root.json
token >build.token
show 0 "$bin/provost" attest provenance --token-file build.token --bundle app.provenance.2.json app
said 'key version 2'
show 0 "$bin/provost" verify app --bundle app.provenance.2.json --trusted-root trusted_root.json
show 0 "$bin/provost" keys list

step "Done: every step came out as it must"
