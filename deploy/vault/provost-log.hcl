# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Sign the heads of the two logs: of signatures (log) and of certificates (ctlog).
# What each parameter rule closes, and how to tighten it to listed versions: README.md.
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-log.hcl | vault policy write provost-log -

path "transit/sign/provost-log" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
  }
  denied_parameters = {
    "key_version" = [""]
    "prehashed"   = [""]
  }
}

path "transit/keys/provost-log" {
  capabilities = ["read"]
}

path "transit/sign/provost-ctlog" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
    "batch_input"          = []
    "key_version"          = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
  }
  denied_parameters = {
    "key_version" = [""]
    "prehashed"   = [""]
  }
}

path "transit/keys/provost-ctlog" {
  capabilities = ["read"]
}
