# Test with verbose logging
import logging
logging.basicConfig(level=logging.DEBUG)

client = OWKAIClient(debug=True)
status = client.test_connection()
