//go:build unix && !linux && !darwin

package stage

import "errors"

func systemRenameNew(from, to string) error { return errors.ErrUnsupported }

func systemExchange(a, b string) error { return errors.ErrUnsupported }

func isMount(string) bool { return false }
