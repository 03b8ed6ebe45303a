# SPDX-FileCopyrightText: The Provost Authors
# SPDX-License-Identifier: Apache-2.0

# Issue certificates: sign with the keys of the issuing CAs, one certificate at a time.
# What each parameter rule closes, and how to tighten it to listed versions: README.md.
#
# The transit engine is assumed at transit/. Elsewhere, say at team/transit/:
#   sed 's#"transit/#"team/transit/#' provost-ca.hcl | vault policy write provost-ca -

path "transit/sign/provost-issuing-provenance" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
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

path "transit/keys/provost-issuing-provenance" {
  capabilities = ["read"]
}

path "transit/sign/provost-issuing-evidence" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
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

path "transit/keys/provost-issuing-evidence" {
  capabilities = ["read"]
}

path "transit/sign/provost-issuing-verdict" {
  capabilities        = ["update"]
  required_parameters = ["key_version", "prehashed"]
  allowed_parameters = {
    "input"                = []
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

path "transit/keys/provost-issuing-verdict" {
  capabilities = ["read"]
}
