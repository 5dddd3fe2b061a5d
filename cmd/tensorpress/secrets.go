package main

import (
	"regexp"
	"strings"
)

// addresses are those in a text, with what they are signed with.
var addresses = regexp.MustCompile("[A-Za-z][A-Za-z0-9+.-]*://[^\\s\"`]+")

// withoutSecrets leaves out of the addresses in a text what gives access to them: a user, and
// what follows a question mark. Sources say their addresses so; this is for texts of flags and
// arguments that nobody takes for addresses, such as a file's that was given as one.
func withoutSecrets(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return addresses.ReplaceAllStringFunc(text, func(address string) string {
		scheme, rest, _ := strings.Cut(address, "://")
		all := strings.TrimRight(rest, ":,;.)") // of the sentence
		end := rest[len(all):]
		shown, _, _ := strings.Cut(all, "?")
		host, _, _ := strings.Cut(shown, "/")
		at := strings.LastIndexByte(host, '@')
		if _, port, ok := strings.Cut(host, ":"); ok && at < 0 && strings.Trim(port, "0123456789") != "" { // a password with a slash
			at = strings.LastIndexByte(shown, '@')
		}
		if at >= 0 && shown[:at] == "USER:PASSWORD" { // what to write
			return address
		}
		return scheme + "://" + shown[at+1:] + end
	})
}
