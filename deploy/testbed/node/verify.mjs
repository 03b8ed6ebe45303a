// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Judges bundles with the Sigstore clients for Node, with their defaults.
//
//   node verify.mjs trusted-root FILE            @sigstore/verify, and a trusted_root.json
//   node verify.mjs tuf MIRROR ROOT CACHEDIR     sigstore, which follows a TUF repository
//
// Each line of standard input is a case, {"bundle": FILE, "identity": PATTERN,
// "issuer": URL}; each line of standard output is what became of it,
// {"ok": BOOLEAN, "error": TEXT}. What is no case ends it with an error.
//
// Neither client compares the statement's subject with an artifact: a caller
// has to do that, with the payload that the client has verified.

import { readFileSync } from 'node:fs';
import { bundleFromJSON } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { Verifier, toSignedEntity, toTrustMaterial } from '@sigstore/verify';
import * as sigstore from 'sigstore';

const json = (file) => JSON.parse(readFileSync(file, 'utf8'));

const [command, ...args] = process.argv.slice(2);
const commands = {
  'trusted-root': (file) => {
    const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(json(file))));
    return (c) => verifier.verify(toSignedEntity(bundleFromJSON(json(c.bundle))),
      { subjectAlternativeName: c.identity, extensions: { issuer: c.issuer } });
  },
  tuf: (tufMirrorURL, tufRootPath, tufCachePath) => (c) => sigstore.verify(json(c.bundle), {
    tufMirrorURL, tufRootPath, tufCachePath, certificateIdentityURI: c.identity, certificateIssuer: c.issuer,
  }),
};
if (!Object.hasOwn(commands, command) || args.length !== commands[command].length) {
  throw new Error('usage: verify.mjs trusted-root FILE | tuf MIRROR ROOT CACHEDIR');
}
const verify = commands[command](...args);
for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const c = JSON.parse(line);
  if (!c.bundle || !c.identity || !c.issuer) throw new Error(`no case: ${line}`); // closed: an empty policy would accept anybody
  let answer = { ok: false, error: '' };
  try {
    await verify(c);
    answer.ok = true;
  } catch (e) {
    answer.error = [e.code, e.message, e.cause?.message].filter(Boolean).join(': ');
  }
  console.log(JSON.stringify(answer));
}
