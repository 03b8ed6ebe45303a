// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the service",
		Long: `Run the service. Run provostd init once before.

It stops on SIGTERM or SIGINT after what is in flight has finished.`,
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, err := requireConfig(*path)
		if err != nil {
			return err
		}
		return serve(c.Context(), config)
	}
	return c
}

func serve(ctx context.Context, config Config) error {
	s, err := openService(ctx, config)
	if err != nil {
		return err
	}
	defer s.close()
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	return s.serve(ctx, listener, func() {})
}
