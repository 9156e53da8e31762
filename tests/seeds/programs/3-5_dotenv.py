from dotenv import load_dotenv
import os

load_dotenv()

client = OWKAIClient(
    api_key=os.getenv('OWKAI_API_KEY'),
    api_url=os.getenv('OWKAI_API_URL')
)
