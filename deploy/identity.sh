#!/bin/sh
# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0
#
# Who may sign what: a job of every provider has its provenance signed, and
# every field is printed with where it comes from; then what the provider's
# tokens must not be is refused. `make identity` runs it, on the programs that
# `make build` made. Each step says what must come of it, and the script fails
# when something else does.
set -eu

story=identity
. "$(dirname "$0")/steps.sh"

# field NAME ORIGIN: insists that the last command printed the field, and that
# its line ends in the origin.
field() {
	grep -qE -- "^ *$1 .* $2\$" "$work/said" || { echo "  the field $1 must be of: $2"; exit 1; }
}

# mint PROVIDER [--claim NAME=VALUE]...: a job's token, as that provider words it.
mint() {
	provider=$1
	shift
	"$bin/provostd" dev-token --data "$work/data" --issuer "$provider" --repository acme/app --ref refs/heads/main "$@" >"$work/$provider.token"
}

# signed PROVIDER BUILDER FIELD ORIGIN: a job of the provider is attested.
signed() {
	step "$1: provenance, and the origin of every field"
	mint "$1"
	echo "built by $1" >"$1.app"
	show 0 "$bin/provost" attest provenance --token-file "$1.token" --bundle "$1.sigstore.json" --explain "$1.app"
	said "https://provost.localhost/builders/$2"
	field /runDetails/builder/id registry
	field "$3" "$4"
	unsaid 'not recorded'
}

# refused PROVIDER WORDS CLAIM...: a token with such a claim is refused, with
# these words.
refused() {
	provider=$1 words=$2
	shift 2
	printf '\n-- refused: %s with %s\n' "$provider" "$*"
	claims=
	for claim; do claims="$claims --claim $claim"; done
	# shellcheck disable=SC2086 # no claim has a space
	mint "$provider" $claims
	show 1 "$bin/provost" attest provenance --token-file "$provider.token" --bundle refused.json "$provider.app"
	said "$words"
	[ ! -e refused.json ] || { echo "  nothing may be signed"; exit 1; }
}

step "The service, for development, on a free port"
start file
cat "$work/ready"
export HOME="$work/home" XDG_CACHE_HOME="$work/home/cache" # sessions are kept below
cd "$work"
show 0 "$bin/provost" builders list

external=/buildDefinition/externalParameters
signed github dev "$external/workflow/path" 'token ref, repository, workflow_ref'
refused github 'event_name is "pull_request"' event_name=pull_request
refused github 'with repository and ref as claimed' repository=evil/app

signed gitlab dev-gitlab "$external/job/configuration" 'token ci_config_ref_uri, project_path, ref_path'
refused gitlab merge_request_event pipeline_source=merge_request_event
refused gitlab "fork's merge request" job_project_id=20

signed buildkite dev-buildkite "$external/source/repository" registry
refused buildkite 'build_commit is HEAD' build_commit=HEAD
refused buildkite '--claim organization_id' organization_id=

signed circleci dev-circleci "$external/source/repository" 'token oidc.circleci.com/vcs-origin'
refused circleci ssh-rerun oidc.circleci.com/ssh-rerun=true

signed kubernetes dev-kubernetes "$external/workload/serviceAccount" 'token kubernetes.io.serviceaccount.name'
refused kubernetes 'bound to no pod' kubernetes.io.pod.uid=

signed spiffe dev-spiffe "$external/workload/spiffeId" 'token sub'
refused spiffe 'SPIFFE ID of a workload' sub=spiffe://dev.provost.localhost

signed oidc dev-oidc "$external/source/repository" 'token repository_url'
refused oidc 'commit is missing or malformed' commit=HEAD

step "A token is accepted once: a copy of it, on another machine, is worth nothing"
mint github
show 0 "$bin/provost" attest provenance --token-file github.token --bundle first.json github.app
show 1 env HOME="$work/thief" XDG_CACHE_HOME="$work/thief/cache" "$bin/provost" attest provenance --token-file github.token --bundle stolen.json github.app
said 'used already'

step "What the job says itself is marked as its own"
mint github
show 0 "$bin/provost" attest provenance --token-file github.token --bundle more.json --explain \
	--dependency pkg:oci/golang=sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 github.app
field '/buildDefinition/resolvedDependencies/[0-9]+/uri' tenant

step "Done: every step came out as it must"
