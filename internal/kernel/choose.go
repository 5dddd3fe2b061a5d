package kernel

import (
	"fmt"
	"os"
	"strings"
)

// EnvCPU is the environment variable that names the set of kernels to use.
const EnvCPU = "TENSORPRESS_CPU"

// A choice is a set with the name that users give it.
type choice struct {
	name string
	set  *set
	has  bool // whether this machine can run it
}

// choices lists the sets from the slowest to the fastest.
func choices() []choice { return append([]choice{{"generic", &portable, true}}, others()...) }

var active, refused = choose(os.Getenv(EnvCPU))

// Name returns the name of the set in use.
func Name() string { return active.name }

// Used returns the name of the set in use, as users give it.
func Used() string {
	for _, c := range choices() {
		if c.set == active {
			return c.name
		}
	}
	return active.name
}

// Sets returns the names of the sets that this machine can run, from the slowest to the
// fastest.
func Sets() (names []string) {
	for _, c := range choices() {
		if c.has {
			names = append(names, c.name)
		}
	}
	return names
}

// Refused returns an error if TENSORPRESS_CPU names a set that does not exist or that
// this machine cannot run. Then the machine's best set is in use.
func Refused() error { return refused }

// choose returns the set of that name, "" for the fastest.
func choose(name string) (best *set, err error) {
	var names []string
	err = fmt.Errorf("%s=%s: no such instruction set", EnvCPU, name)
	for _, c := range choices() {
		if c.has {
			best = c.set
			names = append(names, c.name)
		}
		if c.name == name {
			if c.has {
				return c.set, nil
			}
			err = fmt.Errorf("%s=%s: this machine cannot run it", EnvCPU, name)
		}
	}
	if name == "" {
		return best, nil
	}
	return best, fmt.Errorf("%w: want %s", err, strings.Join(names, " or "))
}
