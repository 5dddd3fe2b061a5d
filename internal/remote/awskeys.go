package remote

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// awsSettings are what the environment and the files of Amazon's tools say.
//
// The providers are those of Amazon's library, but for its package config, which brings the
// clients of four services along and would cost every start of the program 2 ms: what takes
// one of these (a single sign-on, a role) is asked of Amazon's own command.
type awsSettings struct {
	region, endpoint string
	keys             aws.CredentialsProvider // nil where nothing is set
}

// awsProfile has the lines of a profile in both files.
type awsProfile map[string]string

func findAWS() (awsSettings, error) {
	name := cmp.Or(os.Getenv("AWS_PROFILE"), "default")
	home, _ := os.UserHomeDir()
	config := readINI(cmp.Or(os.Getenv("AWS_CONFIG_FILE"), filepath.Join(home, ".aws", "config")))
	secret := readINI(cmp.Or(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), filepath.Join(home, ".aws", "credentials")))
	section := "profile " + name
	if name == "default" && config[section] == nil {
		section = name
	}
	if name != "default" && config[section] == nil && secret[name] == nil {
		return awsSettings{}, usage.Errorf("AWS_PROFILE: there is no profile %s", name)
	}
	p := awsProfile{}
	for _, lines := range []map[string]string{config[section], secret[name]} { // keys of the second file win
		for key, value := range lines {
			p[key] = value
		}
	}
	services := config["services "+p["services"]]
	keys, err := p.keys(name)
	return awsSettings{
		region:   cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), p["region"]),
		endpoint: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), services["s3.endpoint_url"], p["endpoint_url"]),
		keys:     keys,
	}, err
}

// keys is what gives keys, in the order in which Amazon's tools look.
func (p awsProfile) keys(name string) (aws.CredentialsProvider, error) {
	static := func(id, secret, session string) aws.CredentialsProvider {
		return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: session}, nil
		})
	}
	env := os.Getenv
	switch {
	case env("AWS_ACCESS_KEY_ID") != "" && env("AWS_SECRET_ACCESS_KEY") != "":
		return static(env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"), env("AWS_SESSION_TOKEN")), nil
	case env("AWS_WEB_IDENTITY_TOKEN_FILE") != "" && env("AWS_ROLE_ARN") != "":
		return aws.NewCredentialsCache(aws.CredentialsProviderFunc(webIdentity)), nil
	case p.needsCommand():
		if _, err := exec.LookPath("aws"); err != nil {
			return nil, usage.Errorf("the profile %s signs on or takes a role, for which Amazon's own command is asked: install `aws`, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", name)
		}
		return fromCommand("aws configure export-credentials --format process --profile " + shellWord(name)), nil
	case p["credential_process"] != "":
		return fromCommand(p["credential_process"]), nil
	case p["aws_access_key_id"] != "" && p["aws_secret_access_key"] != "":
		return static(p["aws_access_key_id"], p["aws_secret_access_key"], p["aws_session_token"]), nil
	case env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != "":
		return container("http://169.254.170.2" + env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")), nil
	case env("AWS_CONTAINER_CREDENTIALS_FULL_URI") != "":
		return container(env("AWS_CONTAINER_CREDENTIALS_FULL_URI")), nil
	case strings.EqualFold(env("AWS_EC2_METADATA_DISABLED"), "true"):
		return nil, nil
	}
	return aws.NewCredentialsCache(ec2rolecreds.New()), nil
}

// needsCommand reports whether a profile's keys come from a service that is asked for them.
func (p awsProfile) needsCommand() bool {
	for _, key := range []string{"role_arn", "sso_session", "sso_start_url", "login_session"} {
		if p[key] != "" {
			return true
		}
	}
	return false
}

func fromCommand(command string) aws.CredentialsProvider {
	return aws.NewCredentialsCache(processcreds.NewProvider(command))
}

// shellWord quotes a name for the shell that runs such a command.
func shellWord(name string) string { return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'" }

// container asks what a container's host gives it.
func container(address string) aws.CredentialsProvider {
	return aws.NewCredentialsCache(endpointcreds.New(address, func(o *endpointcreds.Options) {
		o.AuthorizationToken = os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
		if file := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
			o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(func() (string, error) {
				text, err := os.ReadFile(file)
				return strings.TrimSpace(string(text)), err
			})
		}
	}))
}

// webIdentity exchanges the token of a file for keys, as pods of a cluster do.
func webIdentity(ctx context.Context) (aws.Credentials, error) {
	token, err := os.ReadFile(os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"))
	if err != nil {
		return aws.Credentials{}, err
	}
	home := "https://sts.amazonaws.com"
	if region := cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")); region != "" {
		home = "https://sts." + region + "." + awsDomain(region)
	}
	c := newClient(func(*http.Request) error { return nil })
	text, _, err := c.text(ctx, request{
		method: http.MethodPost, address: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_STS"), home) + "/",
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
		body: textBody([]byte(url.Values{
			"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {os.Getenv("AWS_ROLE_ARN")},
			"RoleSessionName": {cmp.Or(os.Getenv("AWS_ROLE_SESSION_NAME"), "tensorpress")}, "WebIdentityToken": {strings.TrimSpace(string(token))},
		}.Encode())),
	})
	if err != nil {
		return aws.Credentials{}, err
	}
	var answer struct {
		Credentials struct {
			AccessKeyId, SecretAccessKey, SessionToken string
			Expiration                                 time.Time
		} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	if err := xml.Unmarshal(text, &answer); err != nil || answer.Credentials.AccessKeyId == "" {
		return aws.Credentials{}, errors.New("the exchange of a web identity gave no keys")
	}
	k := answer.Credentials
	return aws.Credentials{AccessKeyID: k.AccessKeyId, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken, CanExpire: true, Expires: k.Expiration}, nil
}

func awsDomain(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// readINI reads one of Amazon's files: sections of lines "key = value"; a line that is
// indented belongs to the key above it, and is that.key here.
func readINI(path string) map[string]map[string]string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	all := map[string]map[string]string{}
	section, above := "", ""
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if name, ok := strings.CutPrefix(trimmed, "["); ok {
			name, _, _ = strings.Cut(name, "]")
			section = strings.Join(strings.Fields(name), " ")
			all[section] = map[string]string{}
			continue
		}
		key, value, ok := strings.Cut(trimmed, "=")
		if !ok || section == "" {
			continue
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if line[0] == ' ' || line[0] == '\t' {
			key = above + "." + key
		} else {
			above = key
		}
		all[section][key] = value
	}
	return all
}
