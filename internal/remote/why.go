package remote

import (
	"errors"
	"net"
	"net/http"

	"github.com/tensorpress/tensorpress/internal/watch"
)

// why is the reason for which a request that failed is made again.
func why(err error) watch.Reason {
	var status *statusError
	var on *net.OpError
	var late net.Error
	switch {
	case errors.As(err, &status) && status.status == http.StatusTooManyRequests:
		return watch.Busy
	case errors.As(err, &status) && status.status >= 500:
		return watch.Failed
	case status != nil, errors.Is(err, errQuiet), errors.As(err, &late) && late.Timeout(): // 408 among the statuses
		return watch.Timeout
	case errors.As(err, &on) && on.Op == "dial", errors.As(err, new(*net.DNSError)):
		return watch.Refused
	}
	return watch.Cut
}
