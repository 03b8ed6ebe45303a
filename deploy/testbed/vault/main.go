// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Command vault is a HashiCorp Vault server for tests: the real core, HTTP API,
// transit engine, auth methods and file audit device, without the command line,
// the cloud SDKs, raft and auto-unseal, which take most of a full build.
//
//	vault server -config=FILE
//
// FILE is Vault's own configuration, HCL or JSON, read by Vault's own parser;
// storage is "file" or "inmem". A released vault binary understands the same words,
// so tests may use either. What it does not have is ha_storage "inmem_ha": with
// it each listener, which then needs a cluster_address, is a node of one cluster:
// one active, the others standing by, in one process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	metrics "github.com/armon/go-metrics"
	"github.com/hashicorp/cli"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command/server"
	"github.com/hashicorp/vault/helper/metricsutil"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "version" {
		fmt.Println(version.GetVersion().FullVersionNumber(true), "(lean test build)")
		return nil
	}
	if len(args) == 0 || args[0] != "server" {
		return errors.New("usage: vault server -config=FILE, vault version")
	}
	flags := flag.NewFlagSet("vault server", flag.ContinueOnError)
	configPath := flags.String("config", "", "Vault configuration `FILE`, HCL or JSON")
	logLevel := flags.String("log-level", "", "trace, debug, info, warn or error; overrides the file")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	config, err := server.LoadConfig(*configPath)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if config.Storage == nil || len(config.Listeners) == 0 {
		return fmt.Errorf("%s: a storage and a listener block are needed", *configPath)
	}
	if *logLevel != "" {
		config.LogLevel = *logLevel
	}
	return serve(ctx, config)
}

// serve runs one core behind its listeners until ctx ends, then seals it.
func serve(ctx context.Context, config *server.Config) error {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{
		Output:     os.Stderr,
		Level:      hclog.LevelFromString(config.LogLevel),
		JSONFormat: config.LogFormat == "json",
	})
	storage, err := openStorage(config.Storage, logger)
	if err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	var ha physical.HABackend
	if config.HAStorage != nil {
		if config.HAStorage.Type != "inmem_ha" {
			return fmt.Errorf("ha_storage type %q: this test build has only \"inmem_ha\"", config.HAStorage.Type)
		}
		lock, err := inmem.NewInmemHA(nil, logger.Named("ha_storage"))
		if err != nil {
			return fmt.Errorf("open ha_storage: %w", err)
		}
		ha = lock.(physical.HABackend)
	}

	failed := make(chan error, len(config.Listeners))
	var servers []*http.Server
	var cores []*vault.Core
	for i, l := range config.Listeners {
		if i == 0 || ha != nil {
			core, err := newCore(config, l, storage, ha, logger.NamedIntercept(l.Address))
			if err != nil {
				return fmt.Errorf("make core: %w", err)
			}
			cores = append(cores, core)
		}
		core := cores[len(cores)-1]
		listener, _, _, err := server.NewListener(l, os.Stderr, &cli.BasicUi{Writer: os.Stderr})
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if l.MaxRequestSize == 0 {
			l.MaxRequestSize = vaulthttp.DefaultMaxRequestSize
		}
		if l.MaxRequestDuration == 0 {
			l.MaxRequestDuration = vault.DefaultMaxRequestDuration
		}
		handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: l})
		if ha != nil {
			address, err := net.ResolveTCPAddr("tcp", l.ClusterAddress)
			if err != nil {
				return fmt.Errorf("cluster_address of %s: %w", l.Address, err)
			}
			core.SetClusterListenerAddrs([]*net.TCPAddr{address})
			core.SetClusterHandler(handler)
		}
		s := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       30 * time.Second,
			IdleTimeout:       5 * time.Minute,
			ErrorLog:          logger.StandardLogger(nil),
		}
		servers = append(servers, s)
		go func() { failed <- s.Serve(listener) }()
		fmt.Printf("==> Vault server started! Listening on %s\n", listener.Addr())
	}

	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	}
	for _, s := range servers {
		s.Close()
	}
	for _, core := range cores {
		err = errors.Join(err, core.Shutdown())
	}
	return err
}

// newCore makes the core behind a listener: the only one, or a node of several.
func newCore(config *server.Config, l *configutil.Listener, storage physical.Backend, ha physical.HABackend, logger hclog.InterceptLogger) (*vault.Core, error) {
	c := &vault.CoreConfig{
		RawConfig:       config,
		Physical:        storage,
		StorageType:     config.Storage.Type,
		RedirectAddr:    config.APIAddr,
		ClusterName:     config.ClusterName,
		DisableMlock:    config.DisableMlock,
		DisableCache:    config.DisableCache,
		CacheSize:       config.CacheSize,
		MaxLeaseTTL:     config.MaxLeaseTTL,
		DefaultLeaseTTL: config.DefaultLeaseTTL,
		EnableRaw:       config.EnableRawEndpoint,
		Logger:          logger,
		AllLoggers:      []hclog.Logger{logger},
		MetricsHelper:   metricsutil.NewMetricsHelper(metrics.NewInmemSink(10*time.Second, time.Minute), false),
		BuiltinRegistry: registry,
		AuditBackends:   map[string]audit.Factory{"file": audit.NewFileBackend},
		// Every engine and auth method comes from the registry, through the plugin factory.
		CredentialBackends: map[string]logical.Factory{"plugin": plugin.Factory},
		LogicalBackends:    map[string]logical.Factory{"plugin": plugin.Factory},
	}
	if ha != nil {
		c.HAPhysical = ha
		c.RedirectAddr = "http://" + l.Address
		c.ClusterAddr = "https://" + l.ClusterAddress
	}
	return vault.NewCore(c)
}

func openStorage(c *server.Storage, logger hclog.Logger) (physical.Backend, error) {
	switch c.Type {
	case "file":
		return file.NewFileBackend(c.Config, logger.Named("storage.file"))
	case "inmem":
		return inmem.NewInmem(c.Config, logger.Named("storage.inmem"))
	}
	return nil, fmt.Errorf("storage type %q: this test build has only \"file\" and \"inmem\"", c.Type)
}
