package oracle

import "slices"

// allCases is the table.
func allCases() []testCase {
	return slices.Concat(
		[]testCase{{name: "ready", routes: `[{match: {prefix: /}, direct_response: {status: 204}}]`}},
		priorityCases(), localityCases(), balanceCases(), matchCases(), rewriteCases(), retryCases(), timeoutCases(),
		failureCases(), limitCases(), healthCases(), headerCases(), bodyCases(), badRequestCases(), http2Cases(),
	)
}
