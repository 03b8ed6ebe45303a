// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A workloadServer is a SPIFFE Workload API that has one JWT-SVID.
type workloadServer struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	token, log string
}

func (w workloadServer) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	asked, _ := metadata.FromIncomingContext(ctx)
	if header := asked.Get("workload.spiffe.io"); len(header) != 1 || header[0] != "true" {
		return nil, status.Error(codes.InvalidArgument, "security header missing from request")
	}
	if err := os.WriteFile(w.log, []byte("audience="+strings.Join(req.GetAudience(), ",")+"\n"), 0o600); err != nil {
		return nil, err
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: "spiffe://acme.example/ci", Svid: w.token}}}, nil
}

// workloads TOKENFILE: stands in for a SPIFFE agent. What it was asked is in
// workload-api.log.
func workloadAPI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: workloads TOKENFILE")
	}
	dir, err := os.MkdirTemp("", "spiffe-") // a socket's path is short
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "api.sock")
	listener, err := net.Listen("unix", socket)
	ts.Check(err)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, workloadServer{token: strings.TrimSpace(ts.ReadFile(args[0])), log: ts.MkAbs("workload-api.log")})
	go func() { _ = server.Serve(listener) }()
	ts.Defer(server.Stop)
	ts.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix://"+socket)
}
