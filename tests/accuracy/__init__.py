"""Every public function at hostile scales, against float64."""
