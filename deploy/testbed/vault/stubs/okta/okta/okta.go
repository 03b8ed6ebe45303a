// SPDX-FileCopyrightText: The Provost Authors
// SPDX-License-Identifier: Apache-2.0

// Package okta stands in for the Okta SDK (12 MB of generated source), which the
// server would ask for a second factor at login. Nobody logs in that way in a
// test: making a configuration is an error, and nothing else is ever reached.
package okta

import (
	"context"
	"errors"
	"net/http"
)

type (
	Configuration struct{ Context context.Context }
	ConfigSetter  func(*Configuration)

	APIClient struct {
		UserAPI       userAPI
		UserFactorAPI userFactorAPI
	}
	userAPI       struct{}
	userFactorAPI struct{}

	listUsers                    struct{}
	listFactors                  struct{}
	verifyFactor                 struct{}
	getFactorTransactionStatus   struct{}
	User                         struct{}
	UserFactorPush               struct{}
	ListFactors200ResponseInner  struct{ UserFactorPush *UserFactorPush }
	UserFactorVerifyResponse     struct{ Links any }
	UserFactorTransactionOutcome struct {
		UserFactorPushTransaction         *struct{}
		UserFactorPushTransactionRejected *struct{}
		UserFactorPushTransactionTimeout  *struct{}
		UserFactorPushTransactionWaiting  *struct{}
	}
)

var errNone = errors.New("Okta is not part of this test build")

func NewConfiguration(...ConfigSetter) (*Configuration, error) { return nil, errNone }
func WithToken(string) ConfigSetter                            { return nil }
func WithOrgUrl(string) ConfigSetter                           { return nil }
func WithCache(bool) ConfigSetter                              { return nil }

func NewAPIClient(*Configuration) *APIClient              { return &APIClient{} }
func (*APIClient) GetConfig() *Configuration              { return &Configuration{} }
func (User) GetId() string                                { return "" }
func (*UserFactorPush) GetId() string                     { return "" }
func (*UserFactorVerifyResponse) GetFactorResult() string { return "" }

func (userAPI) ListUsers(context.Context) listUsers        { return listUsers{} }
func (q listUsers) Filter(string) listUsers                { return q }
func (listUsers) Execute() ([]User, *http.Response, error) { return nil, nil, errNone }

func (userFactorAPI) ListFactors(context.Context, string) listFactors { return listFactors{} }
func (listFactors) Execute() ([]ListFactors200ResponseInner, *http.Response, error) {
	return nil, nil, errNone
}

func (userFactorAPI) VerifyFactor(context.Context, string, string) verifyFactor {
	return verifyFactor{}
}
func (verifyFactor) Execute() (*UserFactorVerifyResponse, *http.Response, error) {
	return nil, nil, errNone
}

func (userFactorAPI) GetFactorTransactionStatus(context.Context, string, string, string) getFactorTransactionStatus {
	return getFactorTransactionStatus{}
}
func (getFactorTransactionStatus) Execute() (*UserFactorTransactionOutcome, *http.Response, error) {
	return nil, nil, errNone
}
