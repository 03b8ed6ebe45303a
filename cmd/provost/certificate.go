// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"provost/api/client"
)

// maxPEM is the largest file of certificates or with a key, in bytes.
const maxPEM = 256 << 10

// A connection is how the service is reached: with a client certificate, and
// whom to believe that it is the service.
type connection struct {
	certificate, key string // of the client
	ca               string // of the service
}

func (n *connection) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&n.certificate, "client-certificate", os.Getenv("PROVOST_CLIENT_CERTIFICATE"), "`FILE` with a client certificate and its chain, instead of a token (PROVOST_CLIENT_CERTIFICATE)")
	f.StringVar(&n.key, "client-key", os.Getenv("PROVOST_CLIENT_KEY"), "`FILE` with its key (PROVOST_CLIENT_KEY)")
	f.StringVar(&n.ca, "ca", os.Getenv("PROVOST_CA"), "`FILE` with the CA of the service's certificate; the system's are not believed then (PROVOST_CA)")
}

// apply has the service asked over this connection.
func (n *connection) apply(c *client.Client, tokenFile string) error {
	if n.certificate == "" && n.key == "" && n.ca == "" {
		return nil
	}
	if (n.certificate == "") != (n.key == "") {
		return usageError{errors.New("--client-certificate and --client-key go together")}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if n.ca != "" {
		raw, err := readBounded(n.ca, maxPEM)
		if err != nil {
			return fmt.Errorf("read the service's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return hint(fmt.Errorf("%s: no certificate in PEM", n.ca), "--ca FILE holds the certificate of the CA that certified the service")
		}
	}
	if n.certificate != "" {
		if !strings.HasPrefix(c.URL, "https://") {
			return usageError{hint(fmt.Errorf("a client certificate, and %s", c.URL), "a certificate is presented over https alone")}
		}
		if tokenFile != "" || strings.TrimSpace(os.Getenv("PROVOST_TOKEN")) != "" { // the service would refuse both
			return usageError{hint(errors.New("a client certificate and a token: which of the two?"), "leave out --client-certificate, or --token-file and PROVOST_TOKEN")}
		}
		pair, err := n.pair()
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
		c.Certified = true
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	c.HTTP = &http.Client{Transport: transport, Timeout: client.Timeout}
	return nil
}

// pair reads the certificate and its key. What is wrong with the key's file is
// said without a word of it.
func (n *connection) pair() (tls.Certificate, error) {
	certificate, err := readBounded(n.certificate, maxPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the client certificate: %w", err)
	}
	key, err := readBounded(n.key, maxPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the client key: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, hint(fmt.Errorf("client certificate %s with key %s: %w", n.certificate, n.key, err), "both are PEM; the certificate comes first in its file, the CAs between it and the root follow")
	}
	return pair, nil
}
