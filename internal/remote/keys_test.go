package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// noKeys has the environment name no credentials.
func noKeys(t *testing.T) (dir string) {
	dir = t.TempDir()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS",
		"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestAWSKeys: keys, the region and the endpoint are those that Amazon's own tools would
// take, wherever they stand.
func TestAWSKeys(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("commands are scripts of a shell")
	}
	dir := noKeys(t)
	put(t, filepath.Join(dir, "config"), `
[default]
region = eu-west-1
[profile work]
region=us-west-2
services = here
endpoint_url = http://other
[profile  asks]
credential_process = echo '{"Version": 1, "AccessKeyId": "PROCESS", "SecretAccessKey": "s"}'
[profile signs on]
sso_session = corp
[services here]
dynamodb =
  endpoint_url = http://wrong
s3 =
  endpoint_url = http://store
`)
	put(t, filepath.Join(dir, "credentials"), "# mine\n[default]\naws_access_key_id = FILE\naws_secret_access_key = s=s\n[work]\naws_access_key_id=WORK\naws_secret_access_key=s\naws_session_token=t\n")
	put(t, filepath.Join(dir, "aws"), "#!/bin/sh\nprintf '{\"Version\": 1, \"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"s\"}' \"$6\"\n")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/container" && r.Header.Get("Authorization") == "let me in":
			fmt.Fprint(w, `{"AccessKeyId": "CONTAINER", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}`)
		case r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") == "token":
			fmt.Fprintf(w, `<R><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></R>`, r.FormValue("RoleArn"))
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer server.Close()
	put(t, filepath.Join(dir, "token"), "token\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	tests := []struct {
		name                 string
		env                  map[string]string
		key, region, address string
	}{
		{"the default profile", nil, "FILE", "eu-west-1", ""},
		{"another, with services", map[string]string{"AWS_PROFILE": "work"}, "WORK", "us-west-2", "http://store"},
		{"the environment", map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "x", "AWS_ENDPOINT_URL": "http://e", "AWS_PROFILE": "work"}, "ENV", "x", "http://e"},
		{"a process", map[string]string{"AWS_PROFILE": "asks"}, "PROCESS", "", ""},
		{"a single sign-on, by Amazon's command", map[string]string{"AWS_PROFILE": "signs on"}, "signs on", "", ""},
		{"a web identity", map[string]string{"AWS_ROLE_ARN": "ROLE", "AWS_WEB_IDENTITY_TOKEN_FILE": filepath.Join(dir, "token"), "AWS_ENDPOINT_URL_STS": server.URL}, "ROLE", "eu-west-1", ""},
		{"a container's host", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.URL + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let me in"}, "CONTAINER", "eu-west-1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			got, err := findAWS()
			if err != nil {
				t.Fatal(err)
			}
			keys, err := got.keys.Retrieve(t.Context())
			if err != nil || keys.AccessKeyID != tt.key || keys.SecretAccessKey == "" || got.region != tt.region || got.endpoint != tt.address {
				t.Errorf("key %s, region %s, endpoint %s, %v", keys.AccessKeyID, got.region, got.endpoint, err)
			}
		})
	}
	t.Setenv("PATH", "/none")
	t.Setenv("AWS_PROFILE", "signs on")
	if _, err := findAWS(); !errors.Is(err, usage.Err) || !strings.Contains(err.Error(), "install `aws`") {
		t.Errorf("without Amazon's command: %v", err)
	}
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
	if got, err := findAWS(); err != nil || got.keys != nil {
		t.Errorf("nothing is set: %v, %v", got.keys, err)
	}
}

// TestAWSPlaces: a bucket is asked where it is, and the region that an answer names is
// taken.
func TestAWSPlaces(t *testing.T) {
	for _, tt := range []struct{ bucket, region, want string }{
		{"models", "eu-west-1", "https://models.s3.eu-west-1.amazonaws.com"}, {"my.models", "us-east-1", "https://s3.us-east-1.amazonaws.com/my.models"},
		{"models", "cn-north-1", "https://models.s3.cn-north-1.amazonaws.com.cn"},
	} {
		s := &s3{bucket: tt.bucket, region: "us-east-2"}
		if !s.moved(&statusError{region: tt.region}) || s.moved(&statusError{region: tt.region}) {
			t.Errorf("%s is not taken, or twice", tt.region)
		}
		if got, _ := s.where(); got != tt.want {
			t.Errorf("%s in %s is at %s", tt.bucket, tt.region, got)
		}
	}
}

// TestAzureLogin: whoever is logged in is found as Azure's own tools do.
func TestAzureLogin(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("commands are scripts of a shell")
	}
	dir := noKeys(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := ""
		switch {
		case r.URL.Path == "/tenant/oauth2/v2.0/token" && r.FormValue("client_secret") == "word":
			token = "secret"
		case r.URL.Path == "/tenant/oauth2/v2.0/token" && r.FormValue("client_assertion") == "vouched":
			token = "cluster"
		case r.URL.Path == "/identity" && r.Header.Get("X-Identity-Header") == "h" && r.FormValue("resource") == azureResource:
			token = "machine"
		default:
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_on": "4000000000", "expires_in": 3600, "token_type": "Bearer"})
	}))
	defer server.Close()
	put(t, filepath.Join(dir, "token"), "vouched\n")
	put(t, filepath.Join(dir, "az"), "#!/bin/sh\necho '{\"accessToken\": \"command\", \"expires_on\": 4000000000}'\n")
	principal := map[string]string{"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "id", "AZURE_AUTHORITY_HOST": server.URL}
	t.Setenv("PATH", "/none")
	tests := []struct {
		want string
		env  map[string]string
	}{
		{"secret", map[string]string{"AZURE_CLIENT_SECRET": "word"}},
		{"cluster", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": filepath.Join(dir, "token")}},
		{"machine", map[string]string{"IDENTITY_ENDPOINT": server.URL + "/identity", "IDENTITY_HEADER": "h"}},
		{"command", map[string]string{"IDENTITY_ENDPOINT": server.URL + "/none", "PATH": dir + ":/bin"}},
		{"", map[string]string{"IDENTITY_ENDPOINT": server.URL + "/none"}},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			for name, value := range principal {
				t.Setenv(name, value)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			s := azureLogin(t.Context())
			if s == nil {
				if tt.want != "" {
					t.Error("nobody is logged in")
				}
				return
			}
			if token, err := s.Token(); err != nil || token.AccessToken != tt.want || !token.Valid() {
				t.Errorf("got %v", err)
			}
		})
	}
}
