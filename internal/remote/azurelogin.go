package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const azureResource = "https://storage.azure.com"

// azureLogin is who is logged in, in the order of Azure's own DefaultAzureCredential: a
// service principal with a secret, one whose cluster vouches for it, the identity of a
// machine, and whoever is logged in with Azure's command. nil for nobody.
//
// Azure's library for it is left out: it would cost every start of the program 1 ms and the
// program 3 MB, for what are a few requests.
func azureLogin(ctx context.Context) oauth2.TokenSource {
	for _, way := range []func(context.Context) oauth2.TokenSource{azurePrincipal, azureMachine, azureCommand} {
		s := way(ctx)
		if s == nil {
			continue
		}
		if s = oauth2.ReuseTokenSource(nil, s); has(s) {
			return s
		}
	}
	return nil
}

func has(s oauth2.TokenSource) bool {
	_, err := s.Token()
	return err == nil
}

// tokens makes tokens by a function.
type tokens func() (*oauth2.Token, error)

func (t tokens) Token() (*oauth2.Token, error) { return t() }

func azurePrincipal(ctx context.Context) oauth2.TokenSource {
	tenant, id := os.Getenv("AZURE_TENANT_ID"), os.Getenv("AZURE_CLIENT_ID")
	secret, file := os.Getenv("AZURE_CLIENT_SECRET"), os.Getenv("AZURE_FEDERATED_TOKEN_FILE")
	if tenant == "" || id == "" || secret == "" && file == "" {
		return nil
	}
	host := strings.TrimRight(cmp.Or(os.Getenv("AZURE_AUTHORITY_HOST"), "https://login.microsoftonline.com"), "/")
	c := clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: host + "/" + url.PathEscape(tenant) + "/oauth2/v2.0/token",
		Scopes: []string{azureResource + "/.default"}, AuthStyle: oauth2.AuthStyleInParams,
	}
	ask := context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Timeout: quiet})
	return tokens(func() (*oauth2.Token, error) {
		if secret == "" { // the file changes from time to time
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			c.EndpointParams = url.Values{
				"client_assertion":      {strings.TrimSpace(string(text))},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			}
		}
		return c.Token(ask)
	})
}

// azureMachine is the identity of a machine, or of an application that a host runs.
func azureMachine(ctx context.Context) oauth2.TokenSource {
	address, wait := "http://169.254.169.254/metadata/identity/oauth2/token", time.Second // which answers at once, where there is one
	q, h := url.Values{"api-version": {"2018-02-01"}, "resource": {azureResource}}, http.Header{"Metadata": {"true"}}
	if host := os.Getenv("IDENTITY_ENDPOINT"); host != "" {
		address, wait = host, quiet
		q.Set("api-version", "2019-08-01")
		h = http.Header{"X-Identity-Header": {os.Getenv("IDENTITY_HEADER")}}
	}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		q.Set("client_id", id)
	}
	return tokens(func() (*oauth2.Token, error) {
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
		defer cancel()
		r, err := http.NewRequestWithContext(ask, http.MethodGet, address+"?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		r.Header = h
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		defer answer.Body.Close()
		var got struct {
			Token   string      `json:"access_token"`
			Expires json.Number `json:"expires_on"` // seconds, as a number or in quotes
		}
		err = json.NewDecoder(answer.Body).Decode(&got)
		seconds, err2 := strconv.ParseInt(got.Expires.String(), 10, 64)
		if err := errors.Join(err, err2); err != nil || got.Token == "" {
			return nil, errors.New("the machine has no identity")
		}
		return &oauth2.Token{AccessToken: got.Token, Expiry: time.Unix(seconds, 0)}, nil
	})
}

// azureCommand is who is logged in with Azure's command.
func azureCommand(ctx context.Context) oauth2.TokenSource {
	if _, err := exec.LookPath("az"); err != nil {
		return nil
	}
	return tokens(func() (*oauth2.Token, error) {
		text, err := exec.CommandContext(context.WithoutCancel(ctx), "az", "account", "get-access-token", "--resource", azureResource, "--output", "json").Output()
		if err != nil {
			return nil, errors.New("`az account get-access-token` failed")
		}
		var got struct {
			Token   string `json:"accessToken"`
			Expires int64  `json:"expires_on"`
		}
		if err := json.Unmarshal(text, &got); err != nil || got.Token == "" {
			return nil, errors.New("`az account get-access-token` gave no token")
		}
		if got.Expires == 0 { // of an older command, whose time has no zone
			got.Expires = time.Now().Add(5 * time.Minute).Unix()
		}
		return &oauth2.Token{AccessToken: got.Token, Expiry: time.Unix(got.Expires, 0)}, nil
	})
}
