//go:build tools

package helm_unittest

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
