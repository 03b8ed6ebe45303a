# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

package provost.gate_test

import data.provost.gate

all_rules := {
	"slsa.provenance_present",
	"slsa.builder_allowed",
	"slsa.source_matches_expectation",
	"slsa.no_unknown_parameters",
	"time.sound",
	"slsa.provenance_accepted",
	"sbom.present",
}

provenance := {
	"attestation": "p1",
	"signedAt": "2026-03-01T12:00:00Z",
	"notBefore": "2026-03-01T11:59:00Z",
	"notAfter": "2026-03-02T12:00:00Z",
	"builderId": "https://provost.example/builders/github-hosted",
	"buildType": "https://actions.github.io/buildtypes/workflow/v1",
	"invocationId": "https://github.com/acme/app/actions/runs/1/attempts/1",
	"source": {
		"repository": "https://github.com/acme/app",
		"ref": "refs/heads/main",
		"commit": "4f2a7c0e9b1d8e3f6a5c4b2d1e0f9a8b7c6d5e4f",
	},
	"unknownParameters": [],
}

sbom := {
	"attestation": "s1",
	"signedAt": "2026-03-01T12:00:01Z",
	"notBefore": "2026-03-01T11:59:00Z",
	"notAfter": "2026-03-02T12:00:00Z",
	"predicateType": "https://cyclonedx.org/bom",
}

good := {
	"facts": {
		"now": "2026-03-01T12:05:00Z",
		"artifact": "sha256:aa",
		"provenance": [provenance],
		"sboms": [sbom],
	},
	"environment": {
		"name": "prod",
		"builders": [{"id": "https://provost.example/builders/github-hosted", "level": 3}],
		"sources": [{
			"repository": "https://github.com/acme/app",
			"refs": ["refs/heads/main", "refs/tags/v*"],
		}],
		"sbom": "required",
	},
}

# changed is good with another value at a path, or with one more in a list.
changed(path, value) := json.patch(good, [{"op": "add", "path": path, "value": value}])

broken contains rule if {
	some rule in gate.required
	not rule in gate.holds
}

test_good_facts_hold_every_rule if {
	gate.required == all_rules with input as good
	gate.holds == all_rules with input as good
	gate.level == 3 with input as good
}

test_judgement_is_all_that_is_asked_for if {
	gate.judgement == {"required": all_rules, "holds": all_rules, "level": 3, "because": gate.because} with input as good
	gate.judgement.holds == {"sbom.present"} with input as changed("/facts/provenance", [])
}

test_every_required_rule_says_why if {
	object.keys(gate.because) == all_rules with input as good
	object.keys(gate.because) == all_rules with input as changed("/facts/provenance", [])
}

# An SBOM that is there holds the rule also where none is asked for.
test_sbom_is_required_unless_it_is_optional if {
	every value in ["required", "Optional", "", "no", null, false] {
		"sbom.present" in gate.required with input as changed("/environment/sbom", value)
	}
	"sbom.present" in gate.required with input as json.remove(good, ["/environment/sbom"])
	gate.required == all_rules - {"sbom.present"} with input as changed("/environment/sbom", "optional")
}

test_nothing_holds_of_nothing if {
	gate.holds == set() with input as {"facts": {"provenance": [], "sboms": []}, "environment": good.environment}
	gate.holds == set() with input as {"facts": {}, "environment": good.environment}
	gate.holds == set() with input as {"facts": good.facts.now, "environment": good.environment}
	gate.required == all_rules with input as {}
	gate.level == 0 with input as {}
}

# One change to what is good, and the rules that no longer hold.
one_change := {
	"no provenance": ["/facts/provenance", [], all_rules - {"sbom.present"}],
	"no SBOM": ["/facts/sboms", [], {"sbom.present"}],
	"another builder": ["/facts/provenance/0/builderId", "https://builders.example/x", builder],
	"a builder that begins alike": ["/facts/provenance/0/builderId", "https://provost.example/builders/github-hosted-large", builder],
	"a builder in a folder of it": ["/facts/provenance/0/builderId", "https://provost.example/builders/github-hosted/x", builder],
	"a builder that is its beginning": ["/facts/provenance/0/builderId", "https://provost.example/builders/github", builder],
	"a builder in capitals": ["/facts/provenance/0/builderId", "https://provost.example/builders/GitHub-hosted", builder],
	"no builder": ["/facts/provenance/0/builderId", "", builder],
	"a builder allowed by a pattern is not": ["/environment/builders/0/id", "https://provost.example/builders/*", builder],
	"another repository": ["/facts/provenance/0/source/repository", "https://github.com/acme/lib", source],
	"a repository that begins alike": ["/facts/provenance/0/source/repository", "https://github.com/acme/app-evil", source],
	"a repository that ends alike": ["/facts/provenance/0/source/repository", "https://evil.example/https://github.com/acme/app", source],
	"a repository with a slash": ["/facts/provenance/0/source/repository", "https://github.com/acme/app/", source],
	"a repository with .git": ["/facts/provenance/0/source/repository", "https://github.com/acme/app.git", source],
	"a repository in capitals": ["/facts/provenance/0/source/repository", "https://github.com/Acme/app", source],
	"no repository": ["/facts/provenance/0/source/repository", "", (source | {"slsa.no_unknown_parameters"})],
	"another ref": ["/facts/provenance/0/source/ref", "refs/heads/feature", source],
	"a ref that begins alike": ["/facts/provenance/0/source/ref", "refs/heads/main2", source],
	"a ref that ends alike": ["/facts/provenance/0/source/ref", "refs/pull/1/refs/heads/main", source],
	"the branch by its short name": ["/facts/provenance/0/source/ref", "main", source],
	"no ref": ["/facts/provenance/0/source/ref", "", source],
	"no commit": ["/facts/provenance/0/source/commit", "", source],
	"an abbreviated commit": ["/facts/provenance/0/source/commit", "4f2a7c0", source],
	"a commit in capitals": ["/facts/provenance/0/source/commit", "4F2A7C0E9B1D8E3F6A5C4B2D1E0F9A8B7C6D5E4F", source],
	"a commit and a line": ["/facts/provenance/0/source/commit", "4f2a7c0e9b1d8e3f6a5c4b2d1e0f9a8b7c6d5e4f\n", source],
	"a branch for a commit": ["/facts/provenance/0/source/commit", "main", source],
	"an unknown parameter": ["/facts/provenance/0/unknownParameters", ["inputs"], {"slsa.no_unknown_parameters", "slsa.provenance_accepted"}],
	"an unknown parameter without a name": ["/facts/provenance/0/unknownParameters", [""], {"slsa.no_unknown_parameters", "slsa.provenance_accepted"}],
	"signed before its certificate began": ["/facts/provenance/0/notBefore", "2026-03-01T12:00:00.000000001Z", time],
	"signed after its certificate ended": ["/facts/provenance/0/notAfter", "2026-03-01T11:59:59.999999999Z", time],
	"signed too far ahead of now": ["/facts/now", "2026-03-01T11:54:59.999999999Z", (time | {"sbom.present"})],
	"the SBOM signed too far ahead of now": ["/facts/now", "2026-03-01T11:55:00.5Z", {"sbom.present"}],
	"the SBOM signed before its certificate began": ["/facts/sboms/0/notBefore", "2026-03-01T12:00:02Z", {"sbom.present"}],
	"the SBOM signed after its certificate ended": ["/facts/sboms/0/notAfter", "2026-03-01T12:00:00Z", {"sbom.present"}],
	"no builder is allowed": ["/environment/builders", [], builder],
	"no source is expected": ["/environment/sources", [], source],
	"no ref is expected": ["/environment/sources/0/refs", [], source],
	"the refs of another repository": [
		"/environment/sources",
		[
			{"repository": "https://github.com/acme/app", "refs": ["refs/tags/v*"]},
			{"repository": "https://github.com/acme/lib", "refs": ["refs/heads/main"]},
		],
		source,
	],
}

builder := {"slsa.builder_allowed", "slsa.provenance_accepted"}

source := {"slsa.source_matches_expectation", "slsa.provenance_accepted"}

time := {"time.sound", "slsa.provenance_accepted"}

test_one_change_breaks[name] if {
	some name, [path, value, rules] in one_change
	broken == rules with input as changed(path, value)
}

# Changes that leave every rule as it was.
still_good := {
	"a commit of SHA-256": ["/facts/provenance/0/source/commit", "4f2a7c0e9b1d8e3f6a5c4b2d1e0f9a8b7c6d5e4f4f2a7c0e9b1d8e3f6a5c4b2d"],
	"signed as its certificate begins": ["/facts/provenance/0/notBefore", "2026-03-01T12:00:00Z"],
	"signed as its certificate ends": ["/facts/provenance/0/notAfter", "2026-03-01T12:00:00Z"],
	"both in one second, in another zone": ["/facts/provenance/0/notAfter", "2026-03-01T13:00:00+01:00"],
	"signed just as far ahead as clocks may differ": ["/facts/now", "2026-03-01T11:55:01Z"],
	"decided long after": ["/facts/now", "2036-03-01T12:00:00Z"],
	"a tag that is expected": ["/facts/provenance/0/source/ref", "refs/tags/v1.2.3"],
	"another good provenance": ["/facts/provenance/-", provenance],
	"a second SBOM": ["/facts/sboms/-", sbom],
	"an SBOM that is not sound, beside one that is": ["/facts/sboms/-", object.union(sbom, {"notAfter": "2020-01-01T00:00:00Z"})],
	"bad provenance beside good": ["/facts/provenance/-", object.union(provenance, {"builderId": "x", "unknownParameters": ["y"]})],
	"bad provenance before good": ["/facts/provenance/0", object.union(provenance, {"builderId": "x", "unknownParameters": ["y"]})],
}

test_still_good[name] if {
	some name, [path, value] in still_good
	broken == set() with input as changed(path, value)
}

# Each of two provenances breaks another rule, so every rule holds of one of
# them, and none is accepted.
halves := {
	"builder and repository": [{"builderId": "x"}, {"source": {"repository": "https://github.com/acme/app-evil"}}],
	"builder and ref": [{"builderId": "x"}, {"source": {"ref": "refs/heads/feature"}}],
	"repository and ref": [{"source": {"repository": "https://github.com/acme/lib"}}, {"source": {"ref": "refs/heads/feature"}, "builderId": "x"}],
	"builder and parameters": [{"builderId": "x"}, {"unknownParameters": ["y"]}],
	"builder and time": [{"builderId": "x"}, {"notAfter": "2020-01-01T00:00:00Z"}],
	"commit and parameters": [{"source": {"commit": ""}}, {"unknownParameters": ["y"]}],
	"time and parameters": [{"notBefore": "2030-01-01T00:00:00Z"}, {"unknownParameters": ["y"]}],
}

test_halves_do_not_make_a_whole[name] if {
	some name, [a, b] in halves
	"slsa.provenance_accepted" in broken with input as changed("/facts/provenance", [object.union(provenance, a), object.union(provenance, b)])
	gate.level == 0 with input as changed("/facts/provenance", [object.union(provenance, a), object.union(provenance, b)])
}

test_halves_hold_each_rule_alone if {
	some a, b in {{"builderId": "x"}: {"unknownParameters": ["y"]}}
	broken == {"slsa.provenance_accepted"} with input as changed("/facts/provenance", [object.union(provenance, a), object.union(provenance, b)])
}

# What the globs of repositories and refs match: [pattern, text, whether].
globs := [
	["https://github.com/acme/app", "https://github.com/acme/app", true],
	["https://github.com/acme/app", "https://github.com/acme/app-evil", false],
	["https://github.com/acme/app", "https://github.com/acme/ap", false],
	["https://github.com/acme/app", "https://github.com/acme/app\n", false],
	["https://github.com/acme/*", "https://github.com/acme/app", true],
	["https://github.com/acme/*", "https://github.com/acme/app/evil", false],
	["https://github.com/acme/*", "https://github.com/acme-evil/app", false],
	["https://github.com/acme/app-*", "https://github.com/acme/app-web", true],
	["https://github.com/acme/app-*", "https://github.com/acme/app", false],
	["https://github.com/*/app", "https://github.com/evil/app", true],
	["https://github.com/*/app", "https://github.com/evil/x/app", false],
	["https://github.com/acme/**", "https://github.com/acme/group/app", true],
	["https://github.com/acme/**", "https://github.com/acme-evil/app", false],
	["https://*.example/acme/app", "https://git.example/acme/app", true],
	["https://*.example/acme/app", "https://evil/.example/acme/app", false],
	["https://github.com.acme/app", "https://githubXcom.acme/app", false],
	["refs/heads/main", "refs/heads/main", true],
	["refs/heads/main", "refs/heads/main/x", false],
	["refs/heads/*", "refs/heads/release", true],
	["refs/heads/*", "refs/heads/release/1.0", false],
	["refs/heads/*", "refs/tags/release", false],
	["refs/heads/**", "refs/heads/release/1.0", true],
	["refs/heads/release/*", "refs/heads/release/1.0", true],
	["refs/heads/release/*", "refs/heads/release-1.0", false],
	["refs/tags/v*", "refs/tags/v1.0", true],
	["refs/tags/v*", "refs/tags/v1@2", true],
	["refs/tags/v*", "refs/tags/v1/../../heads/main", false],
	["refs/tags/v*", "refs/tags/1v", false],
	["refs/tags/v*.*", "refs/tags/v1.0", true],
	["refs/tags/v*.*", "refs/tags/v1", false],
	["refs/heads/release@2", "refs/heads/release@2", true],
	["refs/heads/release@2", "refs/heads/release@22", false],
	["*", "refs/heads/main", false],
	["**", "refs/heads/main", true],
]

test_repositories_match[sprintf("%s and %s", [pattern, text])] if {
	some [pattern, text, matches] in globs
	in_a := json.patch(good, [
		{"op": "add", "path": "/environment/sources/0/repository", "value": pattern},
		{"op": "add", "path": "/facts/provenance/0/source/repository", "value": text},
	])
	matched := count(gate.accepted) == 1 with input as in_a
	matched == matches
}

test_refs_match[sprintf("%s and %s", [pattern, text])] if {
	some [pattern, text, matches] in globs
	in_a := json.patch(good, [
		{"op": "add", "path": "/environment/sources/0/refs", "value": ["refs/x", pattern]},
		{"op": "add", "path": "/facts/provenance/0/source/ref", "value": text},
	])
	matched := count(gate.accepted) == 1 with input as in_a
	matched == matches
}

# The level is that of the builder whose provenance was accepted, whatever
# other builders vouch for.
test_level_is_of_what_was_accepted if {
	two := [{"id": "a", "level": 1}, {"id": "b", "level": 3}]
	of_a := object.union(provenance, {"builderId": "a"})
	of_b := object.union(provenance, {"builderId": "b"})
	evil_b := object.union(of_b, {"source": {"repository": "https://github.com/acme/app-evil"}})
	every want, of in {1: [of_a, evil_b], 3: [of_a, of_b], 0: [evil_b]} {
		in_a := json.patch(good, [
			{"op": "add", "path": "/environment/builders", "value": two},
			{"op": "add", "path": "/facts/provenance", "value": of},
		])
		gate.level == want with input as in_a
	}
}

# A level that the provenance does not claim is not in the verdict, whatever the
# environment says of its builder: what claims less than the environment lists
# is not accepted.
test_level_is_no_more_than_claimed if {
	gate.level == 3 with input as changed("/facts/provenance", [object.union(provenance, {"level": 3})])
	gate.level == 3 with input as changed("/facts/provenance", [object.union(provenance, {"level": 0})])
	gate.level == 3 with input as changed("/facts/provenance", [object.remove(provenance, ["level"])])
	every claimed in [1, 2, -1, 2.9, "3", "", null, true, [3], {}] {
		in_a := changed("/facts/provenance", [object.union(provenance, {"level": claimed})])
		gate.level == 0 with input as in_a
		broken == builder with input as in_a
	}
}

# Where the environment lists less, that is what it vouches for.
test_level_is_no_more_than_listed if {
	every listed, claims in {0: [0, 1, 3], 1: [0, 1, 2, 3], 2: [0, 2, 3]} {
		every claimed in claims {
			in_a := json.patch(good, [
				{"op": "add", "path": "/environment/builders/0/level", "value": listed},
				{"op": "add", "path": "/facts/provenance/0/level", "value": claimed},
			])
			gate.level == listed with input as in_a
			broken == set() with input as in_a
		}
	}
}

# What claims too little says nothing beside what claims enough, and the words
# say why it is not accepted.
test_too_low_beside_what_is_not if {
	broken == set() with input as changed("/facts/provenance/-", object.union(provenance, {"level": 2}))
	words := gate.because["slsa.builder_allowed"] with input as changed("/facts/provenance/0/level", 2)
	words == `built by https://provost.example/builders/github-hosted at level 2; "prod" allows https://provost.example/builders/github-hosted at level 3`
}
