# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# See the public keys of all versions, and sign nothing: for whoever compares them
# with what is published.
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-read.hcl | vault policy write provost-read -

path "transit/keys/provost-provenance" {
  capabilities = ["read"]
}

path "transit/keys/provost-evidence" {
  capabilities = ["read"]
}

path "transit/keys/provost-verdict" {
  capabilities = ["read"]
}

path "transit/keys/provost-issuing-provenance" {
  capabilities = ["read"]
}

path "transit/keys/provost-issuing-evidence" {
  capabilities = ["read"]
}

path "transit/keys/provost-issuing-verdict" {
  capabilities = ["read"]
}

path "transit/keys/provost-timestamp" {
  capabilities = ["read"]
}

path "transit/keys/provost-log" {
  capabilities = ["read"]
}

path "transit/keys/provost-ctlog" {
  capabilities = ["read"]
}

path "transit/keys/provost-tuf" {
  capabilities = ["read"]
}
