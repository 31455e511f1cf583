"""The quickstarts of popular clients of OpenAI's API, run unchanged against a gateway."""
